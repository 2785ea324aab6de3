//! What a node has promised or reached does not go back: its term and its vote over all its lives,
//! what it has committed and applied within each, and in the end it has come at least as far as ever.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{History, Node, Progress, Vote};

const NAME: &str = "nothing goes back";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    votes(&history.consensus.votes)?;
    progress(&history.consensus.progress)?;
    ends(history)
}

/// Votes rise by term, and within a term a vote that was given stays with the same candidate, until
/// the node learns that another one was elected in that term: it keeps that instead, and it votes for
/// nobody any more.
fn votes(votes: &[Vote]) -> Result<(), Violation> {
    let mut newest: BTreeMap<Node, Vote> = BTreeMap::new();
    for vote in votes {
        let before = newest.insert(vote.node, *vote);
        let Some(before) = before else { continue };
        let same_term = vote.term == before.term;
        let goes_back = vote.term < before.term || same_term && before.elected && !vote.elected;
        let learnt = vote.elected && !before.elected;
        let turned = same_term
            && before.voted_for.is_some()
            && vote.voted_for != before.voted_for
            && !learnt;
        if goes_back || turned {
            let text = format!("the vote of {} was {before:?} and then {vote:?}", vote.node);
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

fn progress(seen: &[Progress]) -> Result<(), Violation> {
    let mut newest: BTreeMap<Node, Progress> = BTreeMap::new();
    for now in seen {
        let Some(before) = newest.insert(now.node, *now) else { continue };
        let same_life = before.life == now.life;
        let back = [
            ("term", before.term, now.term, same_life),
            ("life", before.life.into(), now.life.into(), true),
            ("committed entry", before.committed, now.committed, same_life),
            ("applied entry", before.applied, now.applied, same_life),
        ];
        for (what, earlier, later, holds) in back {
            if holds && later < earlier {
                let text = format!(
                    "{what} of {} was {earlier} at {} and {later} at {} (life {})",
                    now.node, before.at, now.at, now.life
                );
                return Err(Violation::new(NAME, text));
            }
        }
    }
    Ok(())
}

/// Whatever a node had applied in any life, it and every other node has applied in the end.
fn ends(history: &History) -> Result<(), Violation> {
    let furthest = history.consensus.progress.iter().max_by_key(|seen| seen.applied);
    let Some(furthest) = furthest else { return Ok(()) };
    for end in &history.states.finals {
        if end.entry < furthest.applied {
            let text = format!(
                "{} ends at entry {}, but {} had applied entry {} at {}",
                end.node, end.entry, furthest.node, furthest.applied, furthest.at
            );
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::history::{History, Node, Time};
    use crate::model::Model;

    fn refused(spoil: impl FnOnce(&mut History)) -> String {
        let mut history = Model::history(2);
        check(&history).unwrap();
        spoil(&mut history);
        check(&history).unwrap_err().text
    }

    #[test]
    fn a_vote_that_was_not_kept() {
        let text = refused(|history| {
            let mut vote = *history.consensus.votes.last().unwrap();
            vote.term -= 1;
            vote.at = Time(vote.at.0 + 1);
            history.consensus.votes.push(vote);
        });
        assert!(text.contains("the vote of"), "{text}");
    }

    #[test]
    fn two_votes_in_one_term() {
        let text = refused(|history| {
            let mut vote = *history.consensus.votes.last().unwrap();
            let given = vote.voted_for.unwrap();
            vote.voted_for = Some(Node(given.0 % 3 + 1));
            history.consensus.votes.push(vote);
        });
        assert!(text.contains("the vote of"), "{text}");
    }

    #[test]
    fn a_vote_after_another_one_was_elected() {
        let mut history = Model::history(2);
        let mut vote = *history.consensus.votes.last().unwrap();
        let given = vote.voted_for.unwrap();
        vote.voted_for = Some(Node(given.0 % 3 + 1));
        vote.elected = true;
        history.consensus.votes.push(vote);
        check(&history).unwrap();
        let text = refused(|spoilt| {
            spoilt.consensus.votes = history.consensus.votes.clone();
            let mut back = vote;
            back.elected = false;
            spoilt.consensus.votes.push(back);
        });
        assert!(text.contains("the vote of"), "{text}");
        let text = refused(|spoilt| {
            spoilt.consensus.votes = history.consensus.votes.clone();
            spoilt.consensus.votes.push(crate::history::Vote { voted_for: Some(given), ..vote });
        });
        assert!(text.contains("the vote of"), "{text}");
    }

    #[test]
    fn what_was_applied_and_committed() {
        for what in ["committed", "applied"] {
            let text = refused(|history| {
                let mut last = *history.consensus.progress.last().unwrap();
                let spoiled =
                    if what == "applied" { &mut last.applied } else { &mut last.committed };
                *spoiled -= 1;
                if what == "committed" {
                    last.applied = 0;
                    last.life += 1;
                    history.consensus.progress.push(last);
                    last.committed -= 1;
                }
                history.consensus.progress.push(last);
            });
            assert!(text.contains(what), "{text}");
        }
    }

    #[test]
    fn a_term_that_fell_within_a_life() {
        let text = refused(|history| {
            let mut last = *history.consensus.progress.last().unwrap();
            last.term -= 1;
            history.consensus.progress.push(last);
        });
        assert!(text.contains("term"), "{text}");
    }

    #[test]
    fn a_node_that_ends_behind_what_was_applied() {
        let text = refused(|history| history.states.finals[0].entry -= 1);
        assert!(text.contains("ends at entry"), "{text}");
    }
}
