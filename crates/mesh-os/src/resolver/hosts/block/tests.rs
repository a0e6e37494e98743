use proptest::prelude::*;

use super::*;

fn network() -> NetworkId {
    "000102030405060708090a0b0c0d0e0f".parse().unwrap()
}

fn other_network() -> NetworkId {
    "ff0102030405060708090a0b0c0d0e0f".parse().unwrap()
}

fn block(text: &str) -> Lines {
    Lines {
        domain: "mesh".to_owned(),
        text: text.to_owned(),
    }
}

fn cinnabar() -> Lines {
    block("fdc3::1 cinnabar.mesh kanban.mesh\n")
}

fn applied(text: &str) -> String {
    String::from_utf8(with(text.as_bytes(), &network(), &cinnabar())).unwrap()
}

fn undone(text: &str) -> String {
    String::from_utf8(without(text.as_bytes(), Some(&network()))).unwrap()
}

const BLOCK: &str = "# BEGIN mesh 000102030405060708090a0b0c0d0e0f mesh
fdc3::1 cinnabar.mesh kanban.mesh
# END mesh 000102030405060708090a0b0c0d0e0f
";

#[test]
fn many_names_of_an_address_are_in_lines_that_every_libc_reads() {
    let mut split = crate::resolver::tests::split();
    let names = (0..200)
        .map(|n| format!("name-{n}.mesh"))
        .collect::<Vec<_>>();
    split.names = vec![("fdc3::1".parse().unwrap(), names.clone())];
    let text = lines(&split).text;
    assert!(
        text.lines().all(|line| line.len() <= LINE_BYTES_MAX),
        "{text}"
    );
    assert!(text.ends_with('\n') && text.starts_with("fdc3::1 name-0.mesh name-1.mesh "));
    let told: Vec<_> = text
        .lines()
        .flat_map(|line| line.strip_prefix("fdc3::1 ").unwrap().split(' '))
        .collect();
    assert_eq!(told, names);
}

#[test]
fn the_block_comes_after_what_is_there() {
    assert_eq!(
        applied("127.0.0.1 localhost\n"),
        format!("127.0.0.1 localhost\n{BLOCK}")
    );
    assert_eq!(applied(""), BLOCK);
}

#[test]
fn a_block_stays_where_it_was_put() {
    let moved = format!("a\n{}b\n", BLOCK.replace("cinnabar", "old"));
    assert_eq!(applied(&moved), format!("a\n{BLOCK}b\n"));
    assert_eq!(undone(&moved), "a\nb\n");
}

#[test]
fn a_file_without_a_last_line_feed_has_none_again() {
    let set = applied("127.0.0.1 localhost");
    assert!(set.starts_with("127.0.0.1 localhost\n# BEGIN"), "{set}");
    assert_eq!(undone(&set), "127.0.0.1 localhost");
    // What came after it needs a line of its own.
    let more = format!("{set}192.0.2.1 more\n");
    assert_eq!(undone(&more), "127.0.0.1 localhost\n192.0.2.1 more\n");
}

#[test]
fn an_editor_that_ends_lines_with_cr_lf_hides_no_block() {
    let text = format!("a\r\n{}b\r\n", BLOCK.replace('\n', "\r\n"));
    assert_eq!(undone(&text), "a\r\nb\r\n");
    assert_eq!(applied(&text), format!("a\r\n{BLOCK}b\r\n"));
}

#[test]
fn a_block_that_was_cut_off_anywhere_goes_and_nothing_else() {
    for length in 1..=BLOCK.len() {
        let torn = format!("a\n{}", &BLOCK[..length]);
        let marked = length >= BLOCK.find('\n').unwrap();
        if marked {
            assert_eq!(undone(&torn), "a\n", "{torn:?}");
            assert_eq!(applied(&torn), format!("a\n{BLOCK}"), "{torn:?}");
        }
    }
}

#[test]
fn a_lost_end_takes_no_line_of_others_with_it() {
    let lost = BLOCK.replace("# END mesh 000102030405060708090a0b0c0d0e0f\n", "");
    let text = format!("a\n{lost}192.0.2.1 other.example\nfdc3::9 x.mesh\n");
    assert_eq!(
        undone(&text),
        "a\n192.0.2.1 other.example\nfdc3::9 x.mesh\n"
    );
    let lost = BLOCK.replace("# BEGIN mesh 000102030405060708090a0b0c0d0e0f mesh\n", "");
    assert!(!undone(&lost).contains("END"));
}

#[test]
fn of_several_blocks_one_is_left() {
    let text = format!("a\n{BLOCK}{BLOCK}b\n{BLOCK}");
    assert_eq!(applied(&text), format!("a\n{BLOCK}b\n"));
    assert_eq!(undone(&text), "a\nb\n");
}

#[test]
fn another_networks_block_is_left_alone() {
    let other = BLOCK.replace("0001", "ff01");
    let text = format!("{other}{BLOCK}");
    assert_eq!(undone(&text), other);
    assert_eq!(without(text.as_bytes(), None), b"");
    assert_eq!(
        without(text.as_bytes(), Some(&other_network())),
        BLOCK.as_bytes()
    );
}

#[test]
fn bytes_that_are_no_text_stay() {
    let text = b"\xff\xfe\n\0\r\n127.0.0.1 a";
    let set = with(text, &network(), &cinnabar());
    assert_eq!(without(&set, Some(&network())), text);
}

/// Files with all that makes trouble: marks of ours and of others, whole and torn, any bytes between.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..20),
        2 => Just(b"127.0.0.1 localhost\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"fdc3::2 x.mesh".to_vec()),
        1 => Just(BLOCK.as_bytes().to_vec()),
        2 => (0..BLOCK.len()).prop_map(|length| BLOCK.as_bytes()[..length].to_vec()),
        1 => (0..BLOCK.len()).prop_map(|start| BLOCK.as_bytes()[start..].to_vec()),
        1 => Just(b"# BEGIN mesh ff0102030405060708090a0b0c0d0e0f mesh +newline\n".to_vec()),
        1 => Just(b"# BEGIN mesh 000102030405060708090a0b0c0d0e0f mesh +newline\n".to_vec()),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn undoing_gives_the_same_bytes_back(text in files(), names in "[a-z]{0,9}") {
        let bare = without(&text, Some(&network()));
        // A file that has marks of ours first loses them; from then on nothing is lost.
        let mut clean = bare.clone();
        while without(&clean, Some(&network())) != clean {
            clean = without(&clean, Some(&network()));
        }
        let set = with(&clean, &network(), &block(&format!("fdc3::1 {names}.mesh\n")));
        prop_assert_eq!(without(&set, Some(&network())), clean);
    }

    #[test]
    fn applying_twice_is_applying_once(text in files()) {
        let once = with(&text, &network(), &cinnabar());
        prop_assert_eq!(with(&once, &network(), &cinnabar()), once.clone());
        let changed = with(&once, &network(), &block(""));
        prop_assert_eq!(with(&changed, &network(), &cinnabar()), once);
    }

    #[test]
    fn what_is_not_ours_is_never_touched(text in files()) {
        let others = |text: &[u8]| -> Vec<Vec<u8>> {
            let pieces = split_up(text, Some(&network()));
            pieces.iter().filter_map(|piece| match piece {
                Piece::Other(bytes) => Some(bytes.strip_suffix(b"\n").unwrap_or(bytes).to_vec()),
                Piece::Block { .. } => None,
            }).collect::<Vec<_>>()
        };
        let set = with(&text, &network(), &cinnabar());
        let joined = |pieces: Vec<Vec<u8>>| pieces.concat().into_iter().filter(|b| *b != b'\n').collect::<Vec<_>>();
        prop_assert_eq!(joined(others(&set)), joined(others(&text)));
    }
}
