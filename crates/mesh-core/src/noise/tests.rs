use super::*;

#[test]
fn both_protocols_match_the_published_vectors() {
    assert_eq!(self_test(), Ok(()));
}

#[test]
fn keys_of_low_order_agree_on_nothing() {
    let keys = KeyPair::new(StaticSecret::from([7; 32]));
    for low in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert_eq!(keys.agree(&low), Err(NoiseError::LowOrder));
    }
}
