//! `adapter`: packs, shipped or one's own: what their bodies become, and their tables to copy.
//!
//! Not here: what a table means and what is compared (`adapter/pack`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::render::{delivery, read_payload};
use super::terminal::Terminal;
use super::{BAD, Code, GOOD};
use crate::adapter::jq::{Evaluate, Script};
use crate::adapter::pack::expected::{Difference, differences, shown};
use crate::adapter::pack::{self, PackTable, Shipped};
use crate::adapter::{self, Adapter, AdapterName, Options};
use crate::config::table_file;
use crate::sandbox::Sandbox;
use crate::setting::Problem;

/// Test a pack against its bodies, or show the table of a shipped one.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay adapter test scanii\n\n\
    A pack is a folder: pack.toml (a table of jq expressions), bodies/ (messages as the platform sends them) and expected.json (what each \
    has to become). To make one of your own, copy the nearest and edit it:\n\n  \
    mkdir -p acme/bodies && verdict-relay adapter show scanii > acme/pack.toml\n  \
    cp message.json acme/bodies/ && verdict-relay adapter test acme\n\n\
    The last line says what the message becomes; put that into acme/expected.json once it is right. Then let a source read it:\n\n  \
    [sources.acme]\n  adapter = \"jq\"\n  adapter_file = \"acme\"")]
pub(super) struct AdapterCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run the bodies of a pack against its expected results.
    #[command(after_help = "Example: verdict-relay adapter test acme --json\n\n\
        expected.json maps each body to a list with one object an item: class (verdict if not given) and any of the fields of an event; only \
        what is named is compared. Exit code 1 if something differs, or if a body has no expectation.")]
    Test {
        /// Name of a shipped pack, or a folder with pack.toml, or that file.
        #[arg(value_name = "PACK")]
        pack: String,
        /// Print JSON: every body with what it becomes and what differs.
        #[arg(long)]
        json: bool,
    },
    /// Print the table of a shipped pack, to copy it.
    #[command(after_help = "Example: verdict-relay adapter show scanii > acme/pack.toml")]
    Show {
        /// Name of a shipped pack.
        #[arg(value_name = "PACK")]
        pack: String,
    },
}

impl AdapterCommand {
    pub(super) fn run(self, terminal: &mut Terminal) -> anyhow::Result<Code> {
        match self.action {
            Action::Show { pack } => {
                let shipped = pack::find(&pack).ok_or_else(|| unknown(&pack))?;
                terminal.file(shipped.table)?;
                Ok(GOOD)
            }
            Action::Test { pack, json } => {
                let pack = Pack::open(&pack)?;
                let results = pack.run()?;
                if json {
                    terminal.json(&results, true)?;
                } else {
                    print(&results, terminal)?;
                }
                let bad = results.iter().filter(|result| !result.is_good()).count();
                if bad > 0 {
                    terminal.say(format_args!("{bad} of {} bodies are not what expected.json says", results.len()));
                    return Ok(BAD);
                }
                terminal.say(format_args!("all {} bodies become what they have to", results.len()));
                Ok(GOOD)
            }
        }
    }
}

fn unknown(name: &str) -> anyhow::Error {
    let names = pack::names().collect::<Vec<_>>().join(", ");
    anyhow!("there is no pack \"{}\": name a folder with pack.toml, or one of {names}", name.escape_default())
}

/// A pack with what it needs to be tested.
struct Pack {
    adapter: Arc<dyn Adapter>,
    bodies: BTreeMap<String, Vec<u8>>,
    expected: BTreeMap<String, Vec<Value>>,
}

impl Pack {
    /// A shipped one of this name, else the one at this path.
    fn open(name: &str) -> anyhow::Result<Self> {
        if let Some(shipped) = pack::find(name) {
            return Self::shipped(shipped);
        }
        if !Path::new(name).exists() {
            return Err(unknown(name));
        }
        Self::at(Path::new(name))
    }

    fn shipped(shipped: &Shipped) -> anyhow::Result<Self> {
        let name = AdapterName(shipped.name.to_owned());
        let adapter = adapter::plan("adapter", &name, &Options::default())?;
        let bodies = shipped.bodies.iter().map(|(name, body)| ((*name).to_owned(), body.to_vec())).collect();
        Ok(Self { adapter, bodies, expected: serde_json::from_str(shipped.expected)? })
    }

    /// A user's own. Its jq runs as it would in the service.
    fn at(path: &Path) -> anyhow::Result<Self> {
        let file = table_file(path);
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let table: PackTable =
            toml::from_str(&text).map_err(|error| anyhow!("{}: {}", file.display(), error.to_string().trim_end()))?;
        let isolate = |script: Script| -> Arc<dyn Evaluate> { Arc::new(Sandbox::new(script)) };
        let adapter = adapter::plan_jq(&format!("{}: ", file.display()), &table, "adapter test", &isolate);
        let told = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
        let adapter = adapter.map_err(|problems| anyhow!("{}", told(problems)))?;
        let mut bodies = BTreeMap::new();
        let in_bodies = folder.join("bodies");
        let listed = in_bodies.read_dir();
        for entry in listed.with_context(|| format!("cannot read {}: put messages there", in_bodies.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What editors and file managers leave behind is no message.
            if !name.starts_with('.') {
                bodies.insert(name, read_payload(&entry.path())?);
            }
        }
        if bodies.is_empty() {
            bail!("{} is empty: put messages there, as the platform sends them", in_bodies.display());
        }
        let expected = folder.join("expected.json");
        let expected = match fs::read(&expected) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!("{}: expected an object that maps each body to a list of results", expected.display())
            })?,
            // What the bodies become is shown, to begin one with.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", expected.display())),
        };
        Ok(Self { adapter, bodies, expected })
    }

    fn run(&self) -> anyhow::Result<Vec<Tested>> {
        let names: BTreeSet<&String> = self.bodies.keys().chain(self.expected.keys()).collect();
        names.into_iter().map(|name| self.test(name)).collect()
    }

    fn test(&self, name: &str) -> anyhow::Result<Tested> {
        let (body, expected) = (self.bodies.get(name), self.expected.get(name));
        let mut tested = Tested { body: name.to_owned(), becomes: Vec::new(), problem: None, differences: Vec::new() };
        let Some(body) = body else {
            tested.problem = Some("expected.json names it, and there is no such body");
            return Ok(tested);
        };
        let source = "adapter-test".parse()?;
        let delivery = delivery(&source, self.adapter.headers(), body.clone().into(), &[], Timestamp::now())?;
        tested.becomes = shown(&self.adapter.normalize(&delivery));
        match expected {
            Some(expected) => tested.differences = differences(&tested.becomes, expected),
            None => tested.problem = Some("expected.json says nothing of it"),
        }
        Ok(tested)
    }
}

/// What became of one body.
#[derive(Debug, Serialize)]
struct Tested {
    body: String,
    becomes: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
    differences: Vec<Difference>,
}

impl Tested {
    const fn is_good(&self) -> bool {
        self.problem.is_none() && self.differences.is_empty()
    }
}

fn print(results: &[Tested], terminal: &mut Terminal) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for result in results {
        let items = result.becomes.iter().enumerate();
        for (at, item) in items {
            let cell = |key: &str| item.get(key).map_or_else(String::new, plain);
            let is_good = result.problem.is_none() && result.differences.iter().all(|difference| difference.item != at);
            let fits = if is_good { "as expected" } else { "differs" };
            rows.push([
                result.body.clone(),
                at.to_string(),
                cell("class"),
                cell("verdict"),
                cell("score"),
                fits.to_owned(),
            ]);
        }
    }
    terminal.table(["BODY", "ITEM", "CLASS", "VERDICT", "SCORE", ""], &rows)?;
    for result in results.iter().filter(|result| !result.is_good()) {
        terminal.line("")?;
        if let Some(problem) = result.problem {
            terminal.line(format_args!("{}: {problem}", result.body))?;
            let becomes = serde_json::to_string(&result.becomes)?;
            terminal.line(format_args!("  becomes  \"{}\": {becomes}", result.body))?;
        }
        for (at, item) in result.becomes.iter().enumerate().filter(|(_, item)| item["class"] == "dead_letter") {
            terminal.line(format_args!(
                "{}, item {at}, would be a dead letter: {}",
                result.body,
                plain(&item["reason"])
            ))?;
        }
        for Difference { item, field, expected, actual } in &result.differences {
            terminal.line(format_args!("{}, item {item}: {field}", result.body))?;
            terminal.line(format_args!("  expected {expected}"))?;
            terminal.line(format_args!("  is       {actual}"))?;
        }
    }
    Ok(())
}

/// A text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
