//! Names for runs that were given none: adjective-noun-number, as MLflow's.
//!
//! Contract: at most 20 characters (MLflow's bound), lower-case ASCII, from the caller's random number alone.

const ADJECTIVES: [&str; 64] = [
    "amber", "ample", "arctic", "azure", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "clear", "clever", "cosmic", "crisp", "curious", "dapper", "deft", "eager", "early", "fair",
    "fleet", "fluent", "fond", "frosty", "gentle", "glad", "golden", "grand", "hardy", "honest", "humble",
    "ideal", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lunar", "mellow", "merry", "mild",
    "misty", "modest", "nimble", "noble", "patient", "placid", "plucky", "polite", "prime", "proud", "quick",
    "quiet", "rapid", "robust", "serene", "silver", "steady", "sunny", "swift", "vivid",
];
const NOUNS: [&str; 64] = [
    "acorn", "alder", "aspen", "badger", "basin", "beacon", "birch", "brook", "canyon", "cedar", "cliff",
    "clover", "comet", "coral", "cove", "delta", "dune", "ember", "falcon", "fern", "fjord", "forest",
    "geyser", "glacier", "grove", "harbor", "hazel", "heron", "hill", "inlet", "island", "juniper", "lagoon",
    "lake", "larch", "linnet", "maple", "marsh", "meadow", "mesa", "oak", "orbit", "osprey", "otter",
    "pebble", "pine", "plover", "pond", "prairie", "quartz", "reef", "ridge", "river", "sparrow", "spruce",
    "summit", "thicket", "tide", "tundra", "valley", "wave", "willow", "wren", "zephyr",
];

/// The name that belongs to a random number.
pub fn run_name(random: u64) -> String {
    let pick = |words: &[&'static str; 64], at: u64| words.get((at % 64) as usize).copied().unwrap_or("run");
    let number = (random >> 12) % 1000;
    format!("{}-{}-{number}", pick(&ADJECTIVES, random), pick(&NOUNS, random >> 6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_short_plain_and_many() {
        for words in [ADJECTIVES, NOUNS] {
            assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), 64, "a word stands twice");
            assert!(words.iter().all(|w| w.len() <= 8 && w.bytes().all(|b| b.is_ascii_lowercase())));
        }
        assert_eq!(run_name(0), "amber-acorn-0");
        assert_eq!(run_name(1 | 2 << 6 | 999 << 12), "ample-aspen-999");
        let names: BTreeSet<_> =
            (0..1000u64).map(|n| run_name(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8)).collect();
        assert!(names.len() > 990 && names.iter().all(|n| n.len() <= 20));
    }
}
