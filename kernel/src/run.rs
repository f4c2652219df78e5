//! Runs one turn: carries out what its machine says, within its deadline, until it ends or is cut.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openfang_audit::{Call, Cause, Event, Outcome, Public};
use openfang_id::{AgentId, NodeId};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use crate::delivery::Arrived;
use crate::handle::Kernel;
use crate::manifest::Model;
use crate::model::{Request, Route, Step, route};
use crate::registry::{Agent, Body, Module, Running, Stop, lock};
use crate::tool::{self, Tool};
use crate::turn::{
    Answer, Chat, Echo, In, Machine, Out, Place, Rules, TOOL_CALLS_MAX, ToolCall, recent,
};
use crate::{ModelError, TurnDone, TurnError, TurnEvent, clock};

/// How long a caller that has not read the events before may take to make room for the last one.
const LAST_WORD: Duration = Duration::from_secs(30);

/// A message that was taken, and all its turn needs.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) kernel: Kernel,
    pub(crate) agent: Arc<Agent>,
    pub(crate) arrived: Arrived,
    pub(crate) events: mpsc::Sender<TurnEvent>,
    /// The audit entry of the message.
    pub(crate) cause: Option<Cause>,
    pub(crate) deadline: Instant,
    pub(crate) after: Duration,
    pub(crate) stop: Stop,
    pub(crate) places: [OwnedSemaphorePermit; 2],
    pub(crate) running: Running,
}

/// Runs a turn to its end, and tells the caller how it ended.
pub(crate) async fn run(job: Job) {
    let span = tracing::info_span!("turn", agent.id = %job.agent.id, agent.name = %job.agent.name, session = job.arrived.session);
    run_in_span(job).instrument(span).await;
}

async fn run_in_span(job: Job) {
    let cut = job.kernel.cut_token();
    let ended = tokio::select! {
        biased;
        () = job.events.closed() => Err(TurnError::Cancelled),
        () = job.stop.token.cancelled() => Err(job.stop.reason()),
        () = cut.cancelled() => Err(TurnError::ShuttingDown),
        () = tokio::time::sleep_until(job.deadline) => Err(TurnError::TimedOut { after: job.after }),
        ended = work(&job) => ended,
    };
    let outcome = match &ended {
        Ok(_) => Outcome::Ok,
        Err(error) => Outcome::Failed(Public::text(error.code())),
    };
    job.kernel
        .audit()
        .note(job.arrived.event(job.agent.id, job.cause.as_ref(), outcome));
    let last = match ended {
        Ok(done) => TurnEvent::Done(done),
        Err(error) => TurnEvent::Failed(error),
    };
    let Job {
        events,
        places,
        running,
        ..
    } = job;
    // The agent is free again before its caller can know that it has ended.
    drop((places, running));
    if timeout(LAST_WORD, events.send(last)).await.is_err() {
        tracing::debug!("the caller of a turn did not read its end");
    }
}

async fn work(job: &Job) -> Result<TurnDone, TurnError> {
    let body = job.agent.body.as_ref().map_err(|_crashed| TurnError::Cut)?;
    let me = job.kernel.me();
    let (_lane, history) = match body.module {
        Module::Echo => (None, Vec::new()),
        Module::Chat => (job.lane(me.0).await?, job.history(body).await?),
    };
    let mut machine: Box<dyn Machine> = match body.module {
        Module::Echo => Box::new(Echo::new(Place {
            agent: job.agent.name.clone(),
            node: me.0,
            node_name: me.1.clone(),
        })),
        Module::Chat => Box::new(Chat::new(Rules {
            max_iterations: body.manifest.max_iterations,
            max_tool_calls: TOOL_CALLS_MAX,
            tools: job.agent.grants.tools().map(Tool::name).collect(),
        })),
    };
    let message = job.arrived.message.clone();
    let answer = job
        .drive(body, machine.as_mut(), In::Start { history, message })
        .await?;
    Ok(TurnDone {
        response: answer.response,
        input_tokens: answer.usage.input_tokens,
        output_tokens: answer.usage.output_tokens,
        iterations: answer.iterations,
        agent_id: job.agent.id,
        agent_name: job.agent.name.clone(),
        node_id: me.0,
        node_name: me.1,
        cause: job.cause.as_ref().map(ToString::to_string),
    })
}

impl Job {
    /// Waits until the session is free. A call that has come through this agent already does not
    /// wait: the turn it would wait for is waiting for it.
    async fn lane(&self, me: NodeId) -> Result<Option<OwnedSemaphorePermit>, TurnError> {
        if self.arrived.path.contains(&(me, self.agent.id)) {
            return Ok(None);
        }
        let lane = self.agent.lane(&self.arrived.session);
        let permit = lane.acquire_owned().await;
        permit.map(Some).map_err(|_closed| TurnError::ShuttingDown)
    }

    async fn history(&self, body: &Body) -> Result<Vec<crate::turn::Message>, TurnError> {
        let max = body.manifest.max_history_messages;
        let store = self.kernel.store();
        let history = store
            .history(self.agent.id, &self.arrived.session, max)
            .await?;
        Ok(recent(history, max as usize))
    }

    /// Carries out what the machine says until it has ended.
    async fn drive(
        &self,
        body: &Body,
        machine: &mut dyn Machine,
        start: In,
    ) -> Result<Answer, TurnError> {
        let mut todo = VecDeque::from(machine.handle(start));
        loop {
            match todo.pop_front() {
                Some(Out::Show(event)) => self.show(event).await?,
                Some(Out::AskModel) => todo.extend(self.ask(body, machine).await?),
                Some(Out::RunTool(call)) => {
                    let (output, is_error) = self.use_tool(call).await?;
                    todo.extend(machine.handle(In::ToolDone { output, is_error }));
                }
                Some(Out::LogDenied(call)) => {
                    tracing::info!(tool = call.tool, "a tool was refused");
                    self.record(Event::cap_denied(&self.agent.id, Public::text(&call.tool)))
                        .await?;
                }
                Some(Out::Done(answer)) => return self.keep(answer).await,
                Some(Out::Failed(error)) => return Err(error),
                None => return Err(TurnError::Cut),
            }
        }
    }

    async fn show(&self, event: TurnEvent) -> Result<(), TurnError> {
        self.events
            .send(event)
            .await
            .map_err(|_gone| TurnError::Cancelled)
    }

    async fn record(&self, event: Event) -> Result<Option<Cause>, TurnError> {
        let audit = self.kernel.audit();
        let seq = audit.record(event).await.map_err(TurnError::NotLogged)?;
        Ok(audit.cause(seq))
    }

    async fn keep(&self, answer: Answer) -> Result<Answer, TurnError> {
        if !answer.transcript.is_empty() {
            let (store, transcript) = (self.kernel.store(), answer.transcript.clone());
            store
                .append(
                    self.agent.id,
                    &self.arrived.session,
                    transcript,
                    clock::unix_ms(),
                )
                .await?;
        }
        Ok(answer)
    }

    /// Asks the agent's model, and those after it while nothing of an answer was given out.
    async fn ask(&self, body: &Body, machine: &mut dyn Machine) -> Result<Vec<Out>, TurnError> {
        let max = body.manifest.resources.max_llm_tokens_per_hour;
        if let Some(retry_after) = lock(&self.agent.tokens).over(self.kernel.uptime(), max) {
            return Err(TurnError::OverLimit {
                limit: "resources.max_llm_tokens_per_hour",
                retry_after,
            });
        }
        let mut last = ModelError::NoModel;
        for model in std::iter::once(&body.manifest.model).chain(&body.manifest.fallback_models) {
            let route = match route::find(model, self.kernel.config()) {
                Ok(route) => route,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            match self.ask_one(model, &route, machine).await? {
                Asked::Ended(out) => return Ok(out),
                Asked::Failed {
                    error,
                    given_out: true,
                } => return Ok(machine.handle(In::ModelFailed(error))),
                Asked::Failed {
                    error,
                    given_out: false,
                } => last = error,
            }
        }
        tracing::warn!(code = last.code(), "no model answered: {last}");
        Ok(machine.handle(In::ModelFailed(last)))
    }

    async fn ask_one(
        &self,
        model: &Model,
        route: &Route,
        machine: &mut dyn Machine,
    ) -> Result<Asked, TurnError> {
        let target = route.target();
        let cause = self
            .record(Event::model_call(self.call(
                &target,
                Outcome::Ok,
                None,
                self.cause.as_ref(),
            )))
            .await?;
        let began = Instant::now();
        let asked = self.listen(model, route, machine).await?;
        let outcome = match &asked {
            Asked::Ended(_) => Outcome::Ok,
            Asked::Failed { error, .. } => Outcome::Failed(Public::text(error.code())),
        };
        let ended = self.call(&target, outcome, Some(began.elapsed()), cause.as_ref());
        self.kernel.audit().note(Event::model_call(ended));
        Ok(asked)
    }

    async fn listen(
        &self,
        model: &Model,
        route: &Route,
        machine: &mut dyn Machine,
    ) -> Result<Asked, TurnError> {
        let mut given_out = false;
        let tools: Vec<Tool> = self.agent.grants.tools().collect();
        let request = Request {
            system_prompt: &model.system_prompt,
            messages: machine.conversation(),
            tools: &tools,
        };
        let mut asking = match self.kernel.client().ask(route, &request, self.deadline) {
            Ok(asking) => asking,
            Err(error) => return Ok(Asked::Failed { error, given_out }),
        };
        loop {
            match asking.next().await {
                Ok(Step::Text(text)) => {
                    given_out = true;
                    for out in machine.handle(In::Text(text)) {
                        match out {
                            Out::Show(event) => self.show(event).await?,
                            other @ (Out::AskModel
                            | Out::RunTool(_)
                            | Out::LogDenied(_)
                            | Out::Done(_)
                            | Out::Failed(_)) => return Ok(Asked::Ended(vec![other])),
                        }
                    }
                }
                Ok(Step::Reply(reply)) => {
                    let used = reply
                        .usage
                        .input_tokens
                        .saturating_add(reply.usage.output_tokens);
                    lock(&self.agent.tokens).add(self.kernel.uptime(), used);
                    return Ok(Asked::Ended(machine.handle(In::Reply(reply))));
                }
                Err(error) => return Ok(Asked::Failed { error, given_out }),
            }
        }
    }

    /// Runs a tool that is granted; its failure is the model's to deal with.
    async fn use_tool(&self, call: ToolCall) -> Result<(String, bool), TurnError> {
        let Some(tool) = Tool::find(&call.tool) else {
            return Ok(("There is no such tool.".to_owned(), true));
        };
        let max = self
            .agent
            .body
            .as_ref()
            .map_or(1, |body| body.manifest.resources.max_tool_calls_per_minute);
        let now = self.kernel.uptime();
        if let Some(retry_after) = lock(&self.agent.tool_calls).over(now, u64::from(max)) {
            return Err(TurnError::OverLimit {
                limit: "resources.max_tool_calls_per_minute",
                retry_after,
            });
        }
        lock(&self.agent.tool_calls).add(now, 1);
        let cause = self
            .record(Event::tool_invoke(self.call(
                tool.name(),
                Outcome::Ok,
                None,
                self.cause.as_ref(),
            )))
            .await?;
        let began = Instant::now();
        let context = tool::Context {
            kernel: &self.kernel,
            agent: &self.agent,
            path: self.path(),
            deadline: self.deadline,
            cause: cause.clone(),
        };
        let result = tool.run(context, &call.arguments).await;
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(tool::ToolError::Denied(why)) => Outcome::Denied(Public::text(why)),
            Err(error) => Outcome::Failed(Public::text(error.code())),
        };
        let ended = self.call(tool.name(), outcome, Some(began.elapsed()), cause.as_ref());
        self.kernel.audit().note(Event::tool_invoke(ended));
        Ok(match result {
            Ok(output) => (output, false),
            Err(error) => (error.to_string(), true),
        })
    }

    fn path(&self) -> Vec<(NodeId, AgentId)> {
        let mut path = self.arrived.path.clone();
        path.push((self.kernel.me().0, self.agent.id));
        path
    }

    fn call<'a>(
        &'a self,
        target: &'a str,
        outcome: Outcome<'a>,
        duration: Option<Duration>,
        cause: Option<&'a Cause>,
    ) -> Call<'a> {
        Call {
            agent: self.agent.id,
            target: Public::text(target).into(),
            user: self.arrived.user(),
            session: Some(self.arrived.session()),
            cause,
            outcome,
            duration,
        }
    }
}

/// How a model was asked.
enum Asked {
    Ended(Vec<Out>),
    Failed { error: ModelError, given_out: bool },
}
