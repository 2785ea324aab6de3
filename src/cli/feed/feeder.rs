//! Sends updates through one session and counts their answers, over failovers.

use std::collections::{BTreeMap, VecDeque};

use anyhow::Context as _;
use futures::FutureExt as _;
use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::cli::failure::Failure;
use crate::client::{
    Acknowledgement, Acknowledgements, Answered, Client, Detail, ErrorCode, Pending, Publisher,
    RequestError, Target, Value,
};
use crate::clock::Clock;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::Specification;
use crate::supervisor::ExitCode;

use super::ndjson::{InputError, Update};
use super::pace::Pace;
use super::tally::Tally;

/// How updates are sent.
#[derive(Debug, Clone)]
pub(in crate::cli) struct FeedOptions {
    /// Updates a second; none is as fast as the cluster takes them.
    pub(in crate::cli) rate: Option<u32>,
    /// Updates that may be unanswered.
    pub(in crate::cli) window: u32,
    /// What missing topics are added as.
    pub(in crate::cli) specification: Specification,
}

/// One stream of updates on its way.
pub(in crate::cli) struct Feeder {
    client: Client,
    publisher: Publisher,
    answers: Acknowledgements,
    options: FeedOptions,
    clock: Clock,
    progress: ProgressBar,
    /// Every topic so far: by path until its identifier is known, then by that.
    targets: BTreeMap<TopicPath, Target>,
    /// Additions that have not been answered.
    additions: VecDeque<(TopicPath, Pending)>,
    /// When the updates that have not been answered were sent; the front one has tag `first_tag`.
    sent_at: VecDeque<Instant>,
    first_tag: u64,
    sent: u64,
    taken: Vec<Acknowledgement>,
    tally: Tally,
}

impl Feeder {
    /// A feeder that sends through `client`.
    pub(in crate::cli) fn new(client: Client, options: FeedOptions, progress: ProgressBar) -> Self {
        let (publisher, answers) = client.publisher(options.window as usize);
        let clock = Clock::system();
        Self {
            client,
            publisher,
            answers,
            options,
            clock,
            progress,
            targets: BTreeMap::new(),
            additions: VecDeque::new(),
            sent_at: VecDeque::new(),
            first_tag: 0,
            sent: 0,
            taken: Vec::new(),
            tally: Tally::new(clock.now()),
        }
    }

    /// Sends all updates and waits for all answers.
    ///
    /// # Errors
    /// When the input cannot be read, an update is refused for good, or the session ends.
    pub(in crate::cli) async fn run(
        &mut self,
        updates: impl Iterator<Item = Result<Update, InputError>>,
    ) -> anyhow::Result<()> {
        self.tally = Tally::new(self.clock.now());
        let mut pace = self.options.rate.map(|rate| Pace::new(rate, self.clock.now()));
        let mut wrong_input = None;
        for update in updates {
            let update = match update {
                Ok(update) => update,
                Err(error) => {
                    // What was sent before is still waited for: the figures count it.
                    wrong_input = Some(error);
                    break;
                }
            };
            if let Some(pace) = &mut pace {
                self.wait_until(pace.take(self.clock.now())).await?;
            }
            self.send(update).await?;
            self.answers.take_into(&mut self.taken);
            self.count_answers()?;
        }
        while self.answers.outstanding() > 0 {
            self.answers.next_into(&mut self.taken).await;
            self.count_answers()?;
        }
        while let Some((path, pending)) = self.additions.pop_front() {
            let answer = pending.await;
            self.learn(path, answer)?;
        }
        match wrong_input {
            Some(error) => Err(Failure::with(ExitCode::FAILED, error.to_string())),
            None => Ok(()),
        }
    }

    /// Updates that were sent.
    pub(in crate::cli) fn sent(&self) -> u64 {
        self.sent
    }

    /// What their answers came to.
    pub(in crate::cli) fn tally(&self) -> &Tally {
        &self.tally
    }

    async fn wait_until(&mut self, due: Instant) -> anyhow::Result<()> {
        while self.clock.now() < due {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.answers.next_into(&mut self.taken), if self.answers.outstanding() > 0 => {}
            }
            self.count_answers()?;
        }
        Ok(())
    }

    async fn send(&mut self, update: Update) -> anyhow::Result<()> {
        let Update { topic, value } = update;
        if !self.targets.contains_key(&topic) {
            let pending = self.client.begin_add_topic(&topic, &self.options.specification).await?;
            self.additions.push_back((topic.clone(), pending));
            // In one session the addition is applied before the update that follows it.
            self.targets.insert(topic.clone(), Target::Path(topic.clone()));
        }
        while self.publisher.is_full() {
            self.answers.next_into(&mut self.taken).await;
            self.count_answers()?;
        }
        let Some(target) = self.targets.get(&topic) else { return Ok(()) };
        self.sent_at.push_back(self.clock.now());
        self.publisher
            .send(target, Value::Json(&value), self.sent)
            .await
            .with_context(|| format!("cannot send update {} to {topic}", self.sent + 1))?;
        self.sent += 1;
        Ok(())
    }

    /// Counts the answers that were taken, and learns the identifiers of added topics.
    fn count_answers(&mut self) -> anyhow::Result<()> {
        if self.taken.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        for answer in self.taken.drain(..) {
            let answered = answer
                .outcome
                .with_context(|| format!("update {} was not acknowledged", answer.tag + 1))?;
            // Answers of one session come in the order of its commands.
            while self.first_tag <= answer.tag {
                let sent = self.sent_at.pop_front();
                self.first_tag += 1;
                self.tally.record(answered.index, sent.unwrap_or(now), now);
                self.progress.inc(1);
            }
        }
        while let Some((path, mut pending)) = self.additions.pop_front() {
            match (&mut pending).now_or_never() {
                None => {
                    self.additions.push_front((path, pending));
                    break;
                }
                Some(answer) => self.learn(path, answer)?,
            }
        }
        Ok(())
    }

    /// Takes the answer to an addition. A topic that is there with another specification is not
    /// missing: its updates go on by path, and say themselves if they do not fit its type.
    fn learn(
        &mut self,
        path: TopicPath,
        answer: Result<Answered, RequestError>,
    ) -> anyhow::Result<()> {
        match answer {
            Err(error) if error.code() == Some(ErrorCode::ExistsMismatch) => Ok(()),
            answer => {
                let answered = answer.with_context(|| format!("cannot add {path}"))?;
                if let Detail::Topic { topic, .. } = answered.detail {
                    self.targets.insert(path, Target::Topic(topic));
                }
                Ok(())
            }
        }
    }
}
