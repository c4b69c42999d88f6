//! The command line of Verdict Relay.

fn main() -> std::process::ExitCode {
    verdict_relay::cli::run()
}
