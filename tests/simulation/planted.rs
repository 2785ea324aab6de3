//! Faults that are put in on purpose: the oracles bite in real runs, not only in histories that a
//! model made up.
//!
//! Some are put in while the world turns ([`runs`](crate::runs) and
//! [`workload`](crate::workload) know how); the others into what a right run has left behind.

use quorate::client::ResetReason;
use quorate::domain::id::Index;

use crate::history::{Action, Heard, History, Node, Operation, Outcome};
use crate::oracles::judge;
use crate::runs::{Planted, history_of, run_with};
use crate::workload::ClientFault;

/// Seeds that are tried until a fault that was put in has done harm.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=10;

fn is_found(planted: Planted, oracles: &[&str]) {
    let mut others = Vec::new();
    let finds = |seed: u64| {
        let violations = run_with(seed, planted).violations;
        let by = |text: &String| oracles.iter().any(|oracle| text.contains(oracle));
        let found = violations.iter().any(by);
        others.extend(violations);
        found
    };
    let found = SEEDS.into_iter().any(finds);
    assert!(found, "{planted:?}: nobody noticed in {SEEDS:?}, but {others:#?}");
}

#[test]
fn a_disk_that_lies_about_its_flushes() {
    // A node whose own files were lost notices by itself.
    let found_by =
        ["acknowledged survives", "replay", "log matching", "nothing goes back", "(exit code 73)"];
    is_found(Planted::LyingFlush, &found_by);
}

#[test]
fn reads_that_ask_no_quorum() {
    is_found(
        Planted::AtClients(ClientFault::StaleReads),
        &["answers agree with the log", "linearizable"],
    );
}

#[test]
fn a_resume_that_repeats() {
    is_found(Planted::AtClients(ClientFault::HearsTwice), &["streams are the journal's"]);
}

#[test]
fn a_resume_that_leaves_out() {
    is_found(Planted::AtClients(ClientFault::Misses), &["streams are the journal's"]);
}

/// The last write that was acknowledged and changed something.
fn acknowledged(history: &mut History) -> &mut Operation {
    let changed = |operation: &&mut Operation| {
        matches!(operation.action, Action::Set(Some(_)))
            && matches!(operation.outcome, Outcome::Applied { changed: true, .. })
    };
    history.operations.iter_mut().rev().find(changed).expect("something was written")
}

/// Two neighbours of one session that were both carried out; their answers change places.
fn reordered_retry(history: &mut History) {
    for place in 0..history.operations.len() {
        let (session, request) =
            (history.operations[place].session, history.operations[place].request);
        let next = history.operations.iter().position(|operation| {
            operation.session == session
                && request.is_some()
                && operation.request == request.map(|request| request + 1)
        });
        let both = next.filter(|next| {
            [place, *next].iter().all(|place| history.operations[*place].index().is_some())
        });
        if let Some(next) = both {
            let outcome = history.operations[place].outcome.clone();
            history.operations[place].outcome = history.operations[next].outcome.clone();
            history.operations[next].outcome = outcome;
            return;
        }
    }
    panic!("sessions send one command after another");
}

#[test]
fn faults_put_into_what_a_run_left() {
    let right = history_of(1);
    assert_eq!(judge(&right), []);
    type Plant = fn(&mut History);
    let cases: [(&str, &str, Plant); 9] = [
        ("acknowledged survives", "an acknowledged write is another one", |history| {
            acknowledged(history).action = Action::Set(Some(-1));
        }),
        ("acknowledged survives", "it stands elsewhere", |history| {
            let operation = acknowledged(history);
            let index = operation.index().map(|index| Index(index.0 - 1));
            operation.outcome = Outcome::Applied { index, changed: true };
        }),
        ("log matching", "a node has another entry", |history| {
            let view = history.logs.iter_mut().rev().find(|view| view.is_final);
            let entries = &mut view.expect("there is a last look").entries;
            let middle = entries.len() / 2;
            entries[middle].chain ^= 1;
        }),
        ("state hash", "a hash misses a field", |history| {
            history.states.finals[1].content ^= 1;
        }),
        ("apply is pure", "all nodes hold a state that is not the log's", |history| {
            for end in &mut history.states.finals {
                end.content ^= 1;
            }
        }),
        ("exactly once and in order", "a retry is reordered", reordered_retry),
        ("one leader per term", "two nodes lead", |history| {
            let mut seen = history.consensus.leaders[0];
            seen.node = Node(seen.node.0 % 3 + 1);
            history.consensus.leaders.push(seen);
        }),
        ("nothing goes back", "a vote was not kept", |history| {
            let mut vote = *history.consensus.votes.last().expect("votes were seen");
            vote.term -= 1;
            history.consensus.votes.push(vote);
        }),
        ("streams are the journal's", "a stream starts over for no reason", |history| {
            let told = |heard: &Heard| matches!(heard, Heard::Value { initial: false, .. });
            let stream = history
                .streams
                .iter_mut()
                .find(|stream| stream.deliveries.iter().any(|delivery| told(&delivery.heard)));
            let stream = stream.expect("values were heard");
            let place = stream.deliveries.iter().position(|delivery| told(&delivery.heard));
            let mut reset = stream.deliveries[place.unwrap_or(0)].clone();
            reset.heard = Heard::Reset { reason: ResetReason::OtherLineage };
            stream.deliveries.insert(place.unwrap_or(0) + 1, reset);
        }),
    ];
    for (oracle, what, plant) in cases {
        let mut history = right.clone();
        plant(&mut history);
        let found = judge(&history);
        assert!(found.iter().any(|one| one.oracle == oracle), "{what}: {found:?}");
    }
}
