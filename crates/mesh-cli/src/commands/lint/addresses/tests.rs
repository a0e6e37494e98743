//! Files as they are, not as they should be.

use std::time::{Duration, Instant};

use super::*;

fn wanted() -> Wanted {
    Wanted {
        domain: "zt".to_owned(),
        machines: BTreeMap::from([
            ("10.1.2.3".parse().unwrap(), "cinnabar".parse().unwrap()),
            ("fd00::1".parse().unwrap(), "cinnabar".parse().unwrap()),
        ]),
        prefixes: vec!["10.1.2.0/24".parse().unwrap()],
    }
}

/// What is found in a file with these bytes, and the file afterwards.
fn linted(bytes: &[u8], fix: bool) -> (Vec<Finding>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, bytes).unwrap();
    let mut findings = Vec::new();
    lint_file(&path, &wanted(), fix, &mut findings).unwrap();
    (findings, fs::read(&path).unwrap())
}

#[test]
fn a_file_full_of_addresses_takes_no_longer_for_each() {
    // Looking at the whole file for each address would take minutes.
    for between in ["\n", " "] {
        let text = format!("http://10.1.2.3{between}").repeat(60_000);
        let started = Instant::now();
        let (findings, after) = linted(text.as_bytes(), true);
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(findings.len(), 60_000);
        assert_eq!(after, text.replace("10.1.2.3", "cinnabar.zt").as_bytes());
    }
}

#[test]
fn a_place_is_counted_in_lines_and_characters() {
    let (findings, _) = linted("é 10.1.2.3\r\n\r\n  fd00::1 10.1.2.9\n".as_bytes(), false);
    let places: Vec<_> = findings.iter().map(|f| (f.line, f.column)).collect();
    assert_eq!(places, [(1, 3), (3, 3), (3, 11)]);
    assert!(findings[2].machine.is_none());
}

#[test]
fn carriage_returns_and_what_is_not_fixed_stay_byte_for_byte() {
    let (findings, after) = linted(
        b"\xef\xbb\xbfa http://[fd00::1]:80/\r\nlisten 10.1.2.3\r\n",
        true,
    );
    assert_eq!(
        after,
        b"\xef\xbb\xbfa http://cinnabar.zt:80/\r\nlisten 10.1.2.3\r\n"
    );
    assert_eq!(findings.iter().filter(|finding| finding.fixed).count(), 1);
}

#[test]
fn text_in_another_encoding_is_read_and_never_written() {
    let latin1 = b"caf\xe9 http://10.1.2.3/\n";
    let (findings, after) = linted(latin1, true);
    assert_eq!(findings.len(), 1);
    assert!(!findings[0].fixed);
    assert_eq!(after, latin1);
    let (findings, _) = linted(b"\x7fELF\0 http://10.1.2.3/\n", true);
    assert!(findings.is_empty());
}

#[test]
fn what_is_too_large_to_look_at_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::File::create(&path)
        .unwrap()
        .set_len(FILE_BYTES_MAX + 1)
        .unwrap();
    let why = lint_file(&path, &wanted(), false, &mut Vec::new()).unwrap();
    assert!(why.unwrap().contains("larger than 4 MiB"));
}
