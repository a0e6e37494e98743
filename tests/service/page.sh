# The commands of docs/install.md, as they are written there. What each block prints stands behind a line with
# its number, for the test to compare with the page.
. /opt/release/common.sh
traces >before

# A newcomer's terminal: somebody sits at it and agrees.
sudo() {
  case "$*" in
  *"mesh service "*) printf 'y\n' | script -qec "$(printf '%q ' "$@")" /dev/null | tr -d '\r' ;;
  *) "$@" ;;
  esac
}

mesh=/opt/release/mesh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
"$mesh" inventory init --name home --out inventory.json
id=$(jq -r .network.id inventory.json)
signer=$(cat ~/.ssh/id_ed25519.pub)

# All blocks of one machine, in this shell and this folder.
follow() {
  hash -r # the program of the section before is gone
  local block number
  for block in /opt/release/block-*-"$1"; do
    number=${block##*/block-}
    sed -e "s|NETWORK_ID|$id|g; s|SIGNER|$signer|g; s|SERVER|127.0.0.1|g" "$block" >typed
    echo "@@ ${number%%-*}"
    # shellcheck disable=SC1091 # made above
    . ./typed
  done
  echo "@@ end"
}

cp /opt/release/*.deb .
follow debian
describe "$mesh" "$(mesh keygen --public /etc/mesh/identity)"
mesh inventory push roster.json --controller 127.0.0.1:4194 --yes
timeout 20 bash -c 'until mesh status | grep -q "admitted    yes"; do sleep 0.1; done'
dpkg -P mesh >/dev/null 2>&1
no_traces

cp /opt/release/*.tar.gz .
mkdir -p /etc/sysusers.d /etc/tmpfiles.d # as most machines have them
follow archive
cd ..
"$mesh" service uninstall --purge --yes >/dev/null 2>&1
no_traces
