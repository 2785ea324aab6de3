//! Once nothing is wrong any more the cluster works again: it has a leader in time, all nodes hold
//! one state, everything that was asked is answered, a write and a subscription work, and no queue
//! ever went over its bound.

use super::Violation;
use crate::history::{Ending, Heard, History, Outcome};
use crate::replay::Replay;

const NAME: &str = "liveness";
/// Elections that it may take to find a leader.
const ELECTIONS_MAX: u64 = 10;

pub(crate) fn check(history: &History, replay: &Replay) -> Result<(), Violation> {
    let fail = |text: String| Err(Violation::new(NAME, text));
    let over = history.queues.iter().find(|queue| queue.level > queue.bound);
    if let Some(queue) = over {
        return fail(format!("a queue went over its bound: {queue:?}"));
    }
    let Some(ending) = &history.ending else { return fail("the run has no end".to_owned()) };
    leader(history, ending)?;
    converged(history, ending, replay)?;
    answered(history, ending)?;
    subscription(history, ending)
}

fn leader(history: &History, ending: &Ending) -> Result<(), Violation> {
    let until = ending.calm_since.0 + ELECTIONS_MAX * ending.election_us;
    let in_time = history.consensus.leaders.iter().any(|seen| {
        seen.at >= ending.calm_since && seen.at.0 <= until && ending.nodes.contains(&seen.node)
    });
    if in_time {
        return Ok(());
    }
    let seen = history
        .consensus
        .leaders
        .iter()
        .filter(|seen| seen.at >= ending.calm_since)
        .min_by_key(|seen| seen.at);
    let text = format!(
        "calm since {}, no leader within {ELECTIONS_MAX} elections of {} ms each; the first: {seen:?}",
        ending.calm_since,
        ending.election_us / 1_000
    );
    Err(Violation::new(NAME, text))
}

fn converged(history: &History, ending: &Ending, replay: &Replay) -> Result<(), Violation> {
    for node in &ending.nodes {
        let end = history.states.finals.iter().find(|end| end.node == *node);
        if end.is_none_or(|end| end.entry != replay.last()) {
            let entry = end.map(|end| end.entry);
            let text =
                format!("{node} ends at entry {entry:?}, the log at entry {}", replay.last());
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

fn answered(history: &History, ending: &Ending) -> Result<(), Violation> {
    let fail = |text: String| Err(Violation::new(NAME, text));
    let waiting = history.operations.iter().find(|operation| operation.answered.is_none());
    if let Some(operation) = waiting {
        return fail(format!("{operation} still waits at {}", ending.at));
    }
    let written = history.operations.iter().any(|operation| {
        operation.called >= ending.calm_since
            && matches!(operation.outcome, Outcome::Applied { changed: true, .. })
    });
    if written { Ok(()) } else { fail("nothing was written in the calm".to_owned()) }
}

fn subscription(history: &History, ending: &Ending) -> Result<(), Violation> {
    let probe = history.streams.iter().find(|stream| {
        Some((stream.client, stream.number)) == ending.probe && stream.opened >= ending.calm_since
    });
    let works = probe.is_some_and(|stream| {
        let heard = |wanted: fn(&Heard) -> bool| {
            stream.deliveries.iter().any(|delivery| wanted(&delivery.heard))
        };
        heard(|heard| *heard == Heard::Current)
            && heard(|heard| matches!(heard, Heard::Value { initial: false, .. }))
    });
    if works {
        return Ok(());
    }
    let text = match probe {
        Some(stream) => format!("{stream} has heard only {:?}", stream.deliveries.last()),
        None => "no subscription was tried in the calm".to_owned(),
    };
    Err(Violation::new(NAME, text))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::history::{Heard, History, Node, QueueLevel, Time};
    use crate::model::Model;
    use crate::replay::Replay;

    fn refused(spoil: impl FnOnce(&mut History)) -> String {
        let mut history = Model::history(10);
        let replay = Replay::of(&history).unwrap();
        check(&history, &replay).unwrap();
        spoil(&mut history);
        check(&history, &replay).unwrap_err().text
    }

    #[test]
    fn what_does_not_come_back() {
        type Spoil = fn(&mut History);
        let cases: [(&str, Spoil); 8] = [
            ("no leader", |history| {
                let calm = history.ending.as_ref().unwrap().calm_since;
                history.consensus.leaders.retain(|seen| seen.at < calm);
            }),
            ("no leader", |history| {
                let ending = history.ending.as_ref().unwrap();
                let late = ending.calm_since.0 + 10 * ending.election_us + 1;
                for seen in &mut history.consensus.leaders {
                    if seen.at >= ending.calm_since {
                        seen.at = Time(late);
                    }
                }
            }),
            ("ends at entry", |history| history.states.finals[2].entry -= 1),
            ("ends at entry", |history| drop(history.states.finals.pop())),
            ("still waits", |history| history.operations[5].answered = None),
            ("nothing was written", |history| {
                let calm = history.ending.as_ref().unwrap().calm_since;
                history.operations.retain(|operation| operation.called < calm);
            }),
            ("has heard only", |history| {
                let probe = history.ending.as_ref().unwrap().probe;
                for stream in &mut history.streams {
                    if Some((stream.client, stream.number)) == probe {
                        stream.deliveries.retain(|delivery| delivery.heard != Heard::Current);
                    }
                }
            }),
            ("over its bound", |history| {
                history.queues.push(QueueLevel {
                    node: Node(1),
                    queue: "permits",
                    level: 11,
                    bound: 10,
                    at: Time(1),
                });
            }),
        ];
        for (words, spoil) in cases {
            let text = refused(spoil);
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
