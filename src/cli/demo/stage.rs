//! What the demo plays on: a temporary folder, a secret, a config, the service, and receivers for it.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::Url;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::receiver::{Form, lines, syslog};
use super::{ARRIVALS_MAX, Arrivals};
use crate::app::{App, Roles};
use crate::cli::ask::client;
use crate::cli::send::Sender;
use crate::config::{Config, Plan};
use crate::secret::KeyRing;
use crate::tls::ClientTlsConfig;

/// The running demo. The folder goes last.
pub(super) struct Stage {
    pub(super) sender: Sender,
    pub(super) keys: KeyRing,
    pub(super) arrivals: Arrivals,
    pub(super) service: JoinHandle<anyhow::Result<()>>,
    stop: oneshot::Sender<()>,
    api: SocketAddr,
    config: PathBuf,
    /// The receivers end with the demo.
    _receivers: JoinSet<anyhow::Result<()>>,
    folder: TempDir,
}

impl Stage {
    /// Sets everything up on free ports of loopback.
    pub(super) async fn build() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("verdict-relay-demo-").tempdir().context("a temporary folder")?;
        let secret = folder.path().join("portal.secret");
        write_secret(&secret).with_context(|| format!("cannot write {}", secret.display()))?;

        let (give, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut receivers = JoinSet::new();
        let mut syslog_ports = Vec::new();
        for form in [Form::Cef, Form::Leef] {
            let listener = TcpListener::bind(LOOPBACK).await.context("a free port for the syslog receiver")?;
            syslog_ports.push(listener.local_addr()?);
            receivers.spawn(syslog(listener, form, give.clone()));
        }
        receivers.spawn(lines(folder.path().join("verdicts.ndjson"), give));

        let config = folder.path().join("demo.toml");
        let any: SocketAddr = LOOPBACK.parse().expect("an address");
        let plan = write_config(&config, [any, any, syslog_ports[0], syslog_ports[1]])?;
        let source = &plan.sources[0];
        let (scheme, secrets) = (source.scheme.clone(), source.secrets.clone());
        let keys = KeyRing::open(secrets, false, Timestamp::now()).await;
        let app = App::build(plan, Roles::default()).await?;
        let (api, receiver) = (app.api_address(), app.receiver_address().context("the receiver is not there")?);
        // Once more with the real ports, for whoever tries the other commands on it.
        write_config(&config, [receiver, api, syslog_ports[0], syslog_ports[1]])?;

        let url = Url::parse(&format!("http://{receiver}/v1/hooks/portal")).context("the receiver's address")?;
        let client = client(&url, &ClientTlsConfig::default())?;
        let sender = Sender { client, signed_url: url.to_string(), url, scheme };
        let (stop, stopped) = oneshot::channel();
        let service = tokio::spawn(app.run(async {
            // Told, or the demo is gone.
            let _either = stopped.await;
        }));
        Ok(Self { sender, keys, arrivals, service, stop, api, config, _receivers: receivers, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn config_path(&self) -> &Path {
        &self.config
    }

    pub(super) fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// Stops the service and waits for it; then the folder goes.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        let Self { service, stop, folder, .. } = self;
        // Gone already, if the service ended by itself.
        let _gone = stop.send(());
        let ended = if service.is_finished() { Ok(Ok(())) } else { service.await };
        folder.close().context("the temporary folder")?;
        ended.context("the service panicked")?
    }
}

/// A new random secret in the form of Standard Webhooks, readable by this user only.
fn write_secret(path: &Path) -> std::io::Result<()> {
    let mut random = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    write!(file, "whsec_{}", STANDARD.encode(random))
}

/// Writes the config with these addresses (receiver, API, CEF, LEEF), and plans it without the environment.
fn write_config(path: &Path, [receiver, api, cef, leef]: [SocketAddr; 4]) -> anyhow::Result<Plan> {
    let folder = path.parent().context("the config is in a folder")?;
    let text = |name: &str| toml::Value::from(folder.join(name).to_string_lossy().into_owned()).to_string();
    let secret = toml::Value::from(format!("file:{}", folder.join("portal.secret").display()));
    let (store, events) = (text("store"), text("verdicts.ndjson"));
    let config = format!(
        r#"# The config of a running `verdict-relay demo`; it goes when the demo ends.
[receiver]
listen = "{receiver}"

[api]
listen = "{api}"

[store]
path = {store}
segment_size = "16MiB"
size_max = "1GiB"

[sources.portal]
adapter = "vileanalyziz"
verify = {{ scheme = "hmac", preset = "standard-webhooks", secrets = [{secret}] }}

[sinks.lake]
type = "file"
path = {events}
format = "ocsf"

[sinks.arcsight]
type = "syslog"
profile = "arcsight"
address = "tcp://{cef}"
hostname = "verdict-relay"
resend = {{ time = "1s" }}

[sinks.qradar]
type = "syslog"
profile = "qradar"
address = "tcp://{leef}"
hostname = "verdict-relay"
resend = {{ time = "1s" }}
"#
    );
    fs::write(path, config).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Config::layered(&[path.to_owned()], &HashMap::new())?.plan()?)
}

const LOOPBACK: &str = "127.0.0.1:0";
