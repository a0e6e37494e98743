//! The keys by which SSH knows machines.

use ssh_key::PublicKey;

/// The host key as type and base64, without its comment; `None`: it is no SSH public key.
///
/// Only what SSH takes comes out: no line break, no further word.
pub fn ssh_host_key(text: &str) -> Option<String> {
    PublicKey::from_openssh(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    Some(format!("{kind} {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDVM0wBmSKsgpf16fE10MiWgVzS2cPsnkUVCCb5S4wk";

    #[test]
    fn a_host_key_loses_its_comment_and_nothing_else() {
        assert_eq!(ssh_host_key(KEY).as_deref(), Some(KEY));
        let commented = format!("{KEY} root@galena\n");
        assert_eq!(ssh_host_key(&commented).as_deref(), Some(KEY));
    }

    #[test]
    fn what_is_no_key_is_none() {
        let forged = format!("{KEY}\n@cert-authority * {KEY}");
        let names = format!("galena,10.0.0.1 {KEY}");
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            &names,
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ] {
            assert_eq!(ssh_host_key(bad), None, "{bad}");
        }
        // What follows the key is a comment at most, and never comes out.
        assert!(ssh_host_key(&forged).is_none_or(|key| key == KEY));
    }
}
