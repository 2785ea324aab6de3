//! One topic as a register, and the search for an order of its operations that explains them.
//!
//! Wing and Gong's search with Lowe's memo. It trusts nothing that a server says about order: only
//! what was asked and answered, when, and that the numbered commands of one session take effect in
//! the order of their numbers. Three things keep it quick and change no verdict: what only looks is
//! taken as soon as it fits; a write that nobody knows the outcome of and whose value nobody saw is
//! left out where no other answer could depend on it; and one whose unique value was seen must take
//! effect before it was seen first.

use std::collections::{BTreeMap, HashSet};

use quorate::domain::id::SessionId;

use crate::history::{Action, Operation, Outcome, Time};

/// Configurations that are looked at before the search gives up.
const CONFIGURATIONS_MAX: usize = 300_000;
/// Operations that may overlap.
const OVERLAP_MAX: usize = 127;
/// Commands of unknown outcome that may have to be tried.
const OPEN_MAX: usize = 64;

/// What came of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Searched {
    /// There is an order that explains everything.
    Explained,
    /// Nothing was decided within the bounds of the search.
    GaveUp,
}

/// The topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Absent,
    Present(Option<i64>),
}

/// An operation and what it was told, as a step from state to state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add { created: bool },
    Set { value: Option<i64>, changed: bool },
    SetIf { expected: Option<i64>, value: i64 },
    Unmet { expected: Option<i64> },
    NoTopic,
    Remove { removed: bool },
    Read { found: bool, value: Option<i64> },
    MayAdd,
    MaySet(Option<i64>),
    MaySetIf { expected: Option<i64>, value: i64 },
    MayRemove,
}

impl Step {
    /// What a topic operation means; none: it says nothing of the topic.
    fn of(operation: &Operation) -> Option<Self> {
        let step = match (&operation.action, &operation.outcome) {
            (Action::Read { linearizable: false }, _) | (_, Outcome::NotRead) => return None,
            (Action::Read { .. }, Outcome::Read(seen)) => {
                Self::Read { found: seen.found, value: seen.value }
            }
            (Action::Read { .. }, _) | (_, Outcome::Read(_)) => return None,
            (Action::Add, Outcome::Applied { changed, .. }) => Self::Add { created: *changed },
            (Action::Set(value), Outcome::Applied { changed, .. }) => {
                Self::Set { value: *value, changed: *changed }
            }
            (Action::SetIf { expected, value }, Outcome::Applied { .. }) => {
                Self::SetIf { expected: *expected, value: *value }
            }
            (Action::Remove, Outcome::Applied { changed, .. }) => {
                Self::Remove { removed: *changed }
            }
            (_, Outcome::Refused { code: 301 }) => Self::NoTopic,
            (Action::SetIf { expected, .. }, Outcome::Refused { code: 306 }) => {
                Self::Unmet { expected: *expected }
            }
            // For any other reason it could be refused in any state.
            (_, Outcome::Refused { .. }) => return None,
            (Action::Add, Outcome::Unknown) => Self::MayAdd,
            (Action::Set(value), Outcome::Unknown) => Self::MaySet(*value),
            (Action::SetIf { expected, value }, Outcome::Unknown) => {
                Self::MaySetIf { expected: *expected, value: *value }
            }
            (Action::Remove, Outcome::Unknown) => Self::MayRemove,
        };
        Some(step)
    }

    /// The state after it; none if it cannot stand here.
    fn from(self, state: State) -> Option<State> {
        let present = match state {
            State::Absent => None,
            State::Present(value) => Some(value),
        };
        let set = |value| Some(State::Present(value));
        match (self, present) {
            (Self::Add { created: true }, None) => set(None),
            (Self::Add { created: false }, Some(value)) => set(value),
            (Self::Set { value, changed }, Some(now)) if (now != value) == changed => set(value),
            (Self::SetIf { expected, value }, Some(now)) if now == expected => set(Some(value)),
            (Self::Unmet { expected }, Some(now)) if now != expected => set(now),
            (Self::NoTopic, None) | (Self::Remove { removed: false }, None) => Some(State::Absent),
            (Self::Remove { removed: true }, Some(_)) => Some(State::Absent),
            (Self::Read { found: false, .. }, None) => Some(State::Absent),
            (Self::Read { found: true, value }, Some(now)) if now == value => set(now),
            (Self::MayAdd, None) => set(None),
            (Self::MaySet(value), Some(_)) => set(value),
            (Self::MaySetIf { expected, value }, Some(now)) if now == expected => set(Some(value)),
            (Self::MayRemove, _) => Some(State::Absent),
            (Self::MayAdd | Self::MaySet(_) | Self::MaySetIf { .. }, _) => Some(state),
            _ => None,
        }
    }

    /// It can change the topic.
    fn writes(self) -> bool {
        match self {
            Self::Add { created: changed }
            | Self::Set { changed, .. }
            | Self::Remove { removed: changed } => changed,
            Self::SetIf { .. }
            | Self::MayAdd
            | Self::MaySet(_)
            | Self::MaySetIf { .. }
            | Self::MayRemove => true,
            Self::Unmet { .. } | Self::NoTopic | Self::Read { .. } => false,
        }
    }

    /// A value that the topic must have had.
    fn saw(self) -> Option<i64> {
        match self {
            Self::Set { value, changed: false } | Self::Read { value, .. } => value,
            Self::SetIf { expected, .. } => expected,
            _ => None,
        }
    }

    /// Its answer could come of a write that nobody saw.
    fn may_have_seen_anything(self) -> bool {
        matches!(
            self,
            Self::Unmet { .. }
                | Self::NoTopic
                | Self::Set { value: None, .. }
                | Self::MaySetIf { .. }
                | Self::MayRemove
        )
    }
}

/// An operation with its time and its place in its session.
#[derive(Debug, Clone, Copy)]
struct Timed<'a> {
    step: Step,
    called: Time,
    /// It took effect before this; none: perhaps never.
    until: Option<Time>,
    operation: &'a Operation,
}

/// What is still to be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Configuration {
    /// Everything before this place is explained.
    base: usize,
    /// And these after it.
    mask: u128,
    /// Commands of unknown outcome that are used.
    open: u64,
    state: State,
}

/// Searches for an order of the operations of one topic.
///
/// # Errors
/// There is none: the operations around the place that the search did not get past.
pub(crate) fn search(operations: &[&Operation]) -> Result<Searched, String> {
    let Some(search) = Search::of(operations) else { return Ok(Searched::GaveUp) };
    search.run()
}

struct Search<'a> {
    /// In the order of their calls.
    sure: Vec<Timed<'a>>,
    /// The command of the same session that must take effect before.
    after: Vec<Option<usize>>,
    open: Vec<Timed<'a>>,
}

impl<'a> Search<'a> {
    fn of(operations: &[&'a Operation]) -> Option<Self> {
        let timed = |operation: &&'a Operation| {
            let step = Step::of(operation)?;
            let until = match operation.outcome {
                Outcome::Unknown => None,
                _ => operation.answered,
            };
            Some(Timed { step, called: operation.called, until, operation })
        };
        let all: Vec<Timed<'a>> = operations.iter().filter_map(timed).collect();
        let (mut sure, unknown): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|timed| timed.until.is_some());
        let mut writers: BTreeMap<i64, usize> = BTreeMap::new();
        for timed in sure.iter().chain(&unknown) {
            if let Step::Set { value: Some(value), .. }
            | Step::SetIf { value, .. }
            | Step::MaySet(Some(value))
            | Step::MaySetIf { value, .. } = timed.step
            {
                *writers.entry(value).or_default() += 1;
            }
        }
        let anything = sure.iter().chain(&unknown).any(|one| one.step.may_have_seen_anything());
        let mut open = Vec::new();
        for timed in unknown {
            let unique = match timed.step {
                Step::MaySet(Some(value)) => {
                    Some(value).filter(|value| writers.get(value) == Some(&1))
                }
                _ => None,
            };
            let seen = sure.iter().filter(|other| unique.is_some() && other.step.saw() == unique);
            match (unique, seen.filter_map(|other| other.until).min()) {
                (Some(_), Some(until)) => sure.push(Timed { until: Some(until), ..timed }),
                (Some(_), None) if !anything => {}
                _ => open.push(timed),
            }
        }
        sure.sort_by_key(|timed| (timed.called, timed.operation.request, timed.until));
        let mut newest: BTreeMap<SessionId, usize> = BTreeMap::new();
        let mut by_number: Vec<usize> = (0..sure.len()).collect();
        by_number.sort_by_key(|place| sure.get(*place).map(|timed| timed.operation.request));
        let mut after = vec![None; sure.len()];
        for place in by_number {
            let Some(timed) = sure.get(place) else { continue };
            if timed.operation.request.is_none() {
                continue;
            }
            if let Some(slot) = after.get_mut(place) {
                *slot = newest.insert(timed.operation.session, place);
            }
        }
        (open.len() <= OPEN_MAX).then_some(Self { sure, after, open })
    }

    fn run(&self) -> Result<Searched, String> {
        let start = Configuration { base: 0, mask: 0, open: 0, state: State::Absent };
        let mut seen = HashSet::new();
        let (mut stack, mut furthest) = (vec![start], start);
        while let Some(next) = stack.pop() {
            let Some(now) = self.look(next) else { return Ok(Searched::GaveUp) };
            if now.base > furthest.base {
                furthest = now;
            }
            if now.base >= self.sure.len() {
                return Ok(Searched::Explained);
            }
            if !seen.insert(now) {
                continue;
            }
            if seen.len() > CONFIGURATIONS_MAX {
                return Ok(Searched::GaveUp);
            }
            self.branch(now, &mut stack);
        }
        Err(self.describe(furthest))
    }

    /// The places that could be next, up to the first answer that is still to be explained.
    fn window(&self, now: &Configuration) -> (std::ops::Range<usize>, Time) {
        let (mut until, mut end) = (Time(u64::MAX), now.base);
        while let Some(timed) = self.sure.get(end) {
            if timed.called > until {
                break;
            }
            if !now.has(end) {
                until = timed.until.map_or(until, |answered| answered.min(until));
            }
            end += 1;
        }
        (now.base..end, until)
    }

    fn ready(&self, now: &Configuration, place: usize, until: Time) -> Option<&Timed<'a>> {
        let timed = self.sure.get(place).filter(|timed| timed.called <= until)?;
        let after = self.after.get(place).copied().flatten();
        (!now.has(place) && after.is_none_or(|before| now.has(before))).then_some(timed)
    }

    /// Takes everything that only looks and fits; none: too much overlaps.
    fn look(&self, mut now: Configuration) -> Option<Configuration> {
        loop {
            now.advance();
            let (places, until) = self.window(&now);
            if places.len() > OVERLAP_MAX {
                return None;
            }
            let fits = |place: &usize| {
                self.ready(&now, *place, until).is_some_and(|timed| {
                    !timed.step.writes() && timed.step.from(now.state).is_some()
                })
            };
            let Some(place) = places.into_iter().find(fits) else { return Some(now) };
            now.take(place);
        }
    }

    fn branch(&self, now: Configuration, stack: &mut Vec<Configuration>) {
        let (places, until) = self.window(&now);
        // What is known to have happened is tried first: it is taken from the end.
        for (place, timed) in self.open.iter().enumerate() {
            let free = now.open >> place & 1 == 0 && timed.called <= until;
            if let Some(state) =
                timed.step.from(now.state).filter(|state| free && *state != now.state)
            {
                stack.push(Configuration { open: now.open | 1 << place, state, ..now });
            }
        }
        for place in places.rev() {
            let step = self.ready(&now, place, until).map(|timed| timed.step);
            if let Some(state) = step.and_then(|step| step.from(now.state)) {
                let mut next = Configuration { state, ..now };
                next.take(place);
                stack.push(next);
            }
        }
    }

    fn describe(&self, furthest: Configuration) -> String {
        let (places, _) = self.window(&furthest);
        let from = places.start.saturating_sub(3);
        let around = self.sure.get(from..places.end).unwrap_or_default();
        let lines: Vec<String> = around.iter().map(|timed| timed.operation.to_string()).collect();
        format!(
            "no order explains it; the topic was {:?} before one of\n    {}",
            furthest.state,
            lines.join("\n    ")
        )
    }
}

impl Configuration {
    fn has(&self, place: usize) -> bool {
        place < self.base || (place - self.base < 128 && self.mask >> (place - self.base) & 1 == 1)
    }

    fn take(&mut self, place: usize) {
        self.mask |= 1 << (place - self.base);
    }

    fn advance(&mut self) {
        let done = self.mask.trailing_ones();
        self.mask = self.mask.checked_shr(done).unwrap_or(0);
        self.base += done as usize;
    }
}
