//! A term has one leader.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::History;

const NAME: &str = "one leader per term";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut leaders = BTreeMap::new();
    for seen in &history.consensus.leaders {
        let first = *leaders.entry(seen.term).or_insert(*seen);
        if first.node != seen.node {
            let text = format!(
                "term {} was led by {} at {} and by {} at {}",
                seen.term, first.node, first.at, seen.node, seen.at
            );
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::history::{Leading, Node};
    use crate::model::Model;

    #[test]
    fn two_leaders_of_one_term() {
        let mut history = Model::history(1);
        check(&history).unwrap();
        let seen = history.consensus.leaders[0];
        let other = Node(seen.node.0 % 3 + 1);
        history.consensus.leaders.push(Leading { node: other, ..seen });
        let text = check(&history).unwrap_err().text;
        assert!(text.contains(&other.to_string()) && text.contains("term"), "{text}");
    }
}
