use proptest::prelude::*;

use super::*;

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

fn url(path: &str) -> Url {
    Url {
        host: SocketAddrV4::new(ROUTER, 5000),
        path: path.to_owned(),
    }
}

fn answer(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {location}\r\nEXT:\r\n\r\n").into_bytes()
}

/// As routers describe themselves: services in devices in devices.
fn description(kind: &str, control: &str, base: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>
<root xmlns=\"urn:schemas-upnp-org:device-1-0\">
  <specVersion><major>1</major><minor>0</minor></specVersion>{base}
  <device>
    <serviceList><service>
      <serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
      <controlURL>/forwarding</controlURL>
    </service></serviceList>
    <deviceList><device><deviceList><device><serviceList><service>
      <serviceType>{kind}</serviceType>
      <SCPDURL>/ip.xml</SCPDURL>
      <controlURL>{control}</controlURL>
    </service></serviceList></device></deviceList></device></deviceList>
  </device>
</root>\n\0"
    )
}

#[test]
fn a_router_is_found_where_it_says_it_is_if_that_is_itself() {
    let found = |location: &str| super::location(&answer(location), ROUTER);
    assert_eq!(
        found("http://192.168.1.1:5000/root.xml"),
        Ok(url("/root.xml"))
    );
    assert_eq!(found("http://192.168.1.1:5000"), Ok(url("/")));
    let port = found("http://192.168.1.1/d").map(|url| url.host.port());
    assert_eq!(port, Ok(80));
    for elsewhere in [
        "http://192.168.1.2:5000/root.xml",
        "http://router.lan/root.xml",
        "http://192.168.1.1@192.0.2.1/root.xml",
        "https://192.168.1.1/root.xml",
        "http://192.168.1.1:0/root.xml",
        "http://192.168.1.1:70000/root.xml",
        "http://192.168.1.1:5000/a b",
        "",
    ] {
        assert_eq!(found(elsewhere), Err(Malformed), "{elsewhere}");
    }
    let long = format!("http://192.168.1.1/{}", "x".repeat(PATH_BYTES_MAX));
    assert_eq!(found(&long), Err(Malformed));
    assert_eq!(
        location(b"HTTP/1.1 404 Not Found\r\n\r\n", ROUTER),
        Err(Malformed)
    );
    assert_eq!(location(search(), ROUTER), Err(Malformed));
}

#[test]
fn the_service_is_found_in_the_description() {
    for kind in SERVICES {
        for (control, base, path) in [
            ("/ctl", "", "/ctl"),
            ("ctl", "", "/x/ctl"),
            ("http://192.168.1.1:5000/ctl", "", "/ctl"),
            (
                "ctl",
                "<URLBase>http://192.168.1.1:5000/y/</URLBase>",
                "/y/ctl",
            ),
        ] {
            let text = description(kind, control, base);
            let found = Service::parse(text.as_bytes(), &url("/x/root.xml"));
            assert_eq!(
                found,
                Ok(Service {
                    url: url(path),
                    kind
                }),
                "{control} {base}"
            );
        }
    }
}

#[test]
fn a_service_elsewhere_or_of_another_kind_is_none() {
    let parse = |text: &str| Service::parse(text.as_bytes(), &url("/root.xml"));
    for elsewhere in ["http://192.0.2.1/ctl", "http://localhost/ctl", "a b", ""] {
        let text = description(SERVICES[0], elsewhere, "");
        if elsewhere.is_empty() {
            continue;
        }
        assert_eq!(parse(&text), Err(Malformed), "{elsewhere}");
    }
    let other = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";
    assert_eq!(parse(&description(other, "/ctl", "")), Err(Malformed));
    let base = "<URLBase>http://192.0.2.1/</URLBase>";
    assert_eq!(
        parse(&description(SERVICES[0], "ctl", base)),
        Err(Malformed)
    );
    assert_eq!(parse(&"x".repeat(DOCUMENT_BYTES_MAX + 1)), Err(Malformed));
}

#[test]
fn documents_that_grow_are_refused() {
    let parse = |text: &str| Service::parse(text.as_bytes(), &url("/root.xml"));
    let bomb = format!(
        "<!DOCTYPE r [<!ENTITY a \"x\"><!ENTITY b \"&a;&a;\">]>{}",
        description(SERVICES[0], "/ctl", "&b;").trim_start_matches("<?xml version=\"1.0\"?>")
    );
    assert_eq!(parse(&bomb), Err(Malformed));
    let many = description(SERVICES[0], "/ctl", &"<a/>".repeat(10_000));
    assert!(many.len() < DOCUMENT_BYTES_MAX);
    assert_eq!(parse(&many), Err(Malformed));
    let deep = format!("{}{}", "<a>".repeat(8_000), "</a>".repeat(8_000));
    assert_eq!(parse(&deep), Err(Malformed));
}

#[test]
fn questions_are_asked_in_soap() {
    let service = Service {
        url: url("/ctl"),
        kind: SERVICES[1],
    };
    let (action, body) = service.question(Action::Add {
        external_port: 4194,
        internal: "192.168.1.5:4193".parse().unwrap(),
        lifetime_seconds: 1800,
    });
    assert_eq!(
        action,
        "\"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\""
    );
    insta::assert_snapshot!(body.replace("\r\n", "\n"), @r#"
    <?xml version="1.0"?>
    <s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:AddPortMapping xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"><NewRemoteHost></NewRemoteHost><NewExternalPort>4194</NewExternalPort><NewProtocol>UDP</NewProtocol><NewInternalPort>4193</NewInternalPort><NewInternalClient>192.168.1.5</NewInternalClient><NewEnabled>1</NewEnabled><NewPortMappingDescription>mesh</NewPortMappingDescription><NewLeaseDuration>1800</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>
    "#);
    for action in [
        Action::ExternalAddress,
        Action::Look { external_port: 1 },
        Action::Delete { external_port: 1 },
    ] {
        let (_, body) = service.question(action);
        assert!(parse(&body).is_ok(), "{body}");
    }
}

#[test]
fn answers_are_read() {
    let done = "<s:Envelope xmlns:s=\"x\"><s:Body><u:GetExternalIPAddressResponse xmlns:u=\"y\">\
                <NewExternalIPAddress> 203.0.113.9 </NewExternalIPAddress>\
                </u:GetExternalIPAddressResponse></s:Body></s:Envelope>";
    assert_eq!(
        Answer::parse(200, done.as_bytes()),
        Ok(Answer::Done {
            external: Some(Ipv4Addr::new(203, 0, 113, 9)),
            client: None
        })
    );
    let refused = "<s:Envelope xmlns:s=\"x\"><s:Body><s:Fault><detail><UPnPError xmlns=\"y\">\
                   <errorCode>718</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>";
    assert_eq!(
        Answer::parse(500, refused.as_bytes()),
        Ok(Answer::Refused(refusal::CONFLICT))
    );
    assert_eq!(Answer::parse(404, b"<html/>"), Err(Malformed));
    assert_eq!(Answer::parse(200, b"\xff"), Err(Malformed));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), status in any::<u16>()) {
        let _ = location(&bytes, ROUTER);
        let _ = Service::parse(&bytes, &url("/"));
        let _ = Answer::parse(status, &bytes);
    }

    #[test]
    fn no_text_leads_elsewhere(control in ".{0,80}", base in ".{0,80}") {
        let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
        let base = format!("<URLBase>{}</URLBase>", escape(&base));
        let text = description(SERVICES[0], &escape(&control), &base);
        if let Ok(service) = Service::parse(text.as_bytes(), &url("/root.xml")) {
            prop_assert_eq!(*service.url.host.ip(), ROUTER);
            prop_assert!(service.url.path.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
