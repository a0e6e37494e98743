use super::*;

const GOOD: &str = r#"
network = "000102030405060708090a0b0c0d0e0f"
signers = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4 admin"]
controllers = ["mesh.example.org:4194"]
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("agent.toml"))
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn three_keys_are_enough() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.listen, "[::]:4193".parse().unwrap());
    assert_eq!(config.interface, "mesh0");
    assert_eq!(config.state_dir, Path::new("/var/lib/mesh/agent"));
    assert_eq!(config.socket, Path::new("/run/mesh/agent.sock"));
    assert_eq!(config.identity_file, Path::new("/etc/mesh/identity"));
    assert_eq!((config.name, config.user, config.group), (None, None, None));
    assert_eq!(config.min_serial, None);
    assert!(config.confine);
    assert!(config.dns);
    assert_eq!(config.resolver, Choice::Auto);
    assert_eq!((config.relay_listen, config.relay_rate), (None, None));
    assert!(config.port_mapping);
    assert_eq!(config.offload, Offload::TcpAndUdp);
}

#[test]
fn every_key_is_taken() {
    let config = parse(&format!(
        "{GOOD}{}",
        r#"
identity_file = "/i"
listen = "127.0.0.1:0"
interface = "m.1"
state_dir = "/s"
socket = "/a"
group = "wheel"
min_serial = 7
name = "galena"
user = "meshd"
confine = false
dns = false
resolver = "hosts"
relay_listen = "[::]:443"
relay_rate = "10MiB"
port_mapping = false
offload = "tcp"
queues = 1
metrics_listen = "[::1]:9193"
"#
    ))
    .unwrap();
    assert_eq!(config.listen, "127.0.0.1:0".parse().unwrap());
    assert_eq!(config.min_serial.map(Serial::get), Some(7));
    assert_eq!(config.name, Some("galena".parse().unwrap()));
    assert_eq!(config.user.as_deref(), Some("meshd"));
    assert!(!config.confine);
    assert_eq!(config.group.as_deref(), Some("wheel"));
    assert!(!config.dns);
    assert_eq!(config.resolver, Choice::Hosts);
    assert_eq!(config.relay_listen, Some("[::]:443".parse().unwrap()));
    assert_eq!(config.relay_rate, Some(10 << 20));
    assert!(!config.port_mapping);
    assert_eq!(config.offload, Offload::Tcp);
    assert_eq!(config.queues, 1);
    assert_eq!(config.metrics_listen, Some("[::1]:9193".parse().unwrap()));
}

#[test]
fn metrics_are_for_this_machine_and_the_mesh_alone() {
    let parsed = |address: &str| parse(&format!("{GOOD}metrics_listen = '{address}'"));
    for inside in ["127.0.0.1:1", "[::1]:1", "[fdc3:582e:db61::1]:1"] {
        assert!(parsed(inside).is_ok(), "{inside}");
    }
    for outside in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "nowhere"] {
        let error = error(&format!("{GOOD}metrics_listen = '{outside}'"));
        assert!(error.contains("metrics_listen"), "{error}");
    }
}

#[test]
fn there_are_as_many_queues_as_make_sense() {
    assert!((1..=4).contains(&parse(GOOD).unwrap().queues));
    for wrong in [0, 17] {
        let message = error(&format!("{GOOD}queues = {wrong}"));
        let range = format!("1 to {QUEUES_MAX}");
        assert!(
            message.contains("line 5") && message.contains(&range),
            "{message}"
        );
    }
}

#[test]
fn a_rate_is_a_number_of_bytes_or_has_a_unit() {
    let rate = |text| parse(&format!("{GOOD}relay_rate = {text}"));
    assert_eq!(rate("2_000_000").unwrap().relay_rate, Some(2_000_000));
    assert_eq!(rate("\"1GiB\"").unwrap().relay_rate, Some(1 << 30));
    for wrong in ["0", "-1", "\"10 MB\"", "\"\""] {
        let message = error(&format!("{GOOD}relay_rate = {wrong}"));
        assert!(
            message.contains("line 5") && message.contains("10MiB"),
            "{message}"
        );
    }
}

#[test]
fn a_way_to_resolve_that_does_not_exist_is_an_error_with_those_that_do() {
    let message = error(&format!("{GOOD}resolver = \"dnsmasq\""));
    assert!(
        message.contains("line 5") && message.contains("`resolvconf`, `hosts` or `none`"),
        "{message}"
    );
}

#[test]
fn the_documented_example_is_a_configuration() {
    let page = include_str!("../../../../docs/agent.md");
    let example = page
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    parse(example).unwrap();
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_one() {
    assert_eq!(
        error(&format!("{GOOD}interfaces = \"x\"\n")),
        "`agent.toml` has an unknown key `interfaces` in line 5; did you mean `interface`?"
    );
    let far = error(&format!("{GOOD}zzzzzzzzzzzz = 1\n"));
    assert!(far.contains("the keys are `network`, `signers`"), "{far}");
}

#[test]
fn missing_keys_are_named_all_at_once() {
    assert_eq!(
        error("interface = \"x\"\n"),
        "`agent.toml` does not say `network`, `signers`, `controllers`"
    );
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    for (line, expected) in [
        ("listen = \"nowhere\"", "in line 5: `listen`: `nowhere`"),
        ("interface = \"a b\"", "in line 5: `interface`"),
        (
            "min_serial = 0",
            "in line 5: `min_serial`: `0` is not a serial",
        ),
        ("name = \"A_B\"", "use `a-b`"),
        ("listen = 7", "in line 5: invalid type"),
        ("listen = ", "in line 5: "),
    ] {
        let error = error(&format!("{GOOD}{line}\n"));
        assert!(error.contains(expected), "{line}: {error}");
    }
    let no_signer = error(&GOOD.replace("signers = [\"ssh", "signers = [] # [\"ssh"));
    assert!(no_signer.contains("in line 3: `signers`"), "{no_signer}");
    let bad_signer = error(&GOOD.replace("ssh-ed25519 ", "ssh-nothing "));
    assert!(bad_signer.contains("in line 3: `signers`"), "{bad_signer}");
    let bad_network = error(&GOOD.replace("0001", "xx01"));
    assert!(
        bad_network.contains("in line 2: `network`"),
        "{bad_network}"
    );
    let bad_controller = error(&GOOD.replace("org:4194", "org"));
    assert!(bad_controller.contains("host:port"), "{bad_controller}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/agent.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the configuration `/nowhere/agent.toml`"
    );
}
