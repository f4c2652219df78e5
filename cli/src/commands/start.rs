//! `openfang start`: the node itself, in this process.

use openfang_node::config::process_environment;
use openfang_node::signal::{Also, Signals};
use openfang_node::{Ready, RunError, telemetry};

use crate::args::Start;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// Runs the node until it is told to stop.
pub(crate) fn run(args: &Start, context: &Context) -> Result<Exit, Failure> {
    let prepared = openfang_node::prepare(&context.home, &process_environment).map_err(failure)?;
    telemetry::start(prepared.config().log_level, &process_environment)
        .map_err(|why| Failure::new(Exit::Config, why.to_string()))?;
    let also = Also {
        survives_hangup: args.in_background,
        ends_with_input: args.until_stdin_closes,
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("openfang")
        .build()?
        .block_on(async {
            let signals = Signals::of_process(also)?;
            openfang_node::run(prepared, signals, announce)
                .await
                .map_err(failure)
        })?;
    Ok(Exit::Ok)
}

fn announce(ready: &Ready) {
    let text = format!(
        "ready: openfang {} at http://{}, node {} ({}), network {}",
        openfang_node::VERSION,
        ready.daemon.listen_addr,
        ready.node_name,
        ready.node_id,
        ready.network
    );
    // Whoever started us may not be listening; the node runs all the same.
    match render::line(&text) {
        Ok(()) | Err(_) => {}
    }
}

fn failure(why: RunError) -> Failure {
    let exit = if why.is_configuration() {
        Exit::Config
    } else {
        Exit::Failure
    };
    Failure::new(exit, why.to_string())
}
