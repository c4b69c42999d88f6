//! jq for adapters and conditions: expressions in, one JSON answer out. jq only selects and reshapes; what its answer means is read by
//! those who ask (`pack`, [`condition`]).
//!
//! The same [`Program`] runs where the expressions are ours, in this process, and where they are a user's, in a process of its own
//! behind the port [`Evaluate`]: an expression may never end, ask for all memory or overflow the stack.
//!
//! Invariants: a body is checked as a whole (`json`) before jq sees a byte of it; numbers keep every digit; an expression reads what it is
//! given and nothing else (`jq/functions`); an error names the key of the expression and never holds a value of the message.
//!
//! Not here: processes and deadlines (`sandbox`), tables of fields (`pack`).

use jaq_core::data::JustLut;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars, compile, load};
use jaq_json::Val;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NormalizeError;
use crate::json::{Document, NotJson};

mod depth;
mod functions;
mod messages;
mod value;

#[cfg(test)]
mod tests;

use depth::is_too_deep;
use functions::{definitions, functions};
use messages::{Message, messages};

/// The port: what the expressions make of one body. Made for one [`Script`].
pub trait Evaluate: Send + Sync {
    /// The answer as JSON: a list with one object an item, see [`Program::run`].
    fn evaluate(&self, body: &[u8]) -> Result<Vec<u8>, Refusal>;
}

/// Why a body has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// It is not readable JSON.
    #[error("not readable JSON: {0}")]
    Json(String),
    /// The expressions could not be run to their end.
    #[error("jq: {0}")]
    Program(String),
}

impl From<Refusal> for NormalizeError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Json(words) => Self::Json(words),
            Refusal::Program(_) => Self::Field(refusal.to_string()),
        }
    }
}

impl From<NotJson> for Refusal {
    fn from(error: NotJson) -> Self {
        Self::Json(error.to_string())
    }
}

/// What a message is wrapped in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unwrap {
    /// Whatever of the following it is, or nothing.
    #[default]
    Auto,
    /// Amazon SNS: the message is JSON in a text.
    Sns,
    /// Azure Event Grid, its own schema: a list of events, each with its `data`.
    EventGrid,
    /// CloudEvents in structured mode, one or a batch.
    CloudEvents,
    /// Nothing.
    None,
}

/// One expression, and where it stands in the config: `fields.sha256`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expression {
    /// The key, for errors.
    pub key: String,
    /// The jq.
    pub jq: String,
}

impl Expression {
    /// The expression at `key`.
    pub fn new(key: impl Into<String>, jq: impl Into<String>) -> Self {
        Self { key: key.into(), jq: jq.into() }
    }
}

/// The expressions of one adapter or condition, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// What a message is wrapped in.
    pub unwrap: Unwrap,
    /// From a message to its items; without one the message is the only item.
    pub foreach: Option<Expression>,
    /// The class of an item; without one every item is a verdict.
    pub class: Option<Expression>,
    /// Asked of an item of the class `pointer`: the id of its report.
    pub pointer: Option<Expression>,
    /// Asked of an item of the class `verdict`: name in the answer, and expression.
    pub parts: Vec<(String, Expression)>,
    /// Whether an item without the first part is odd; the others are not asked of it then.
    pub needs_first: bool,
}

impl Script {
    /// All expressions, in the order of their numbers.
    fn expressions(&self) -> impl Iterator<Item = (Part, &Expression)> {
        let single = [(Part::Foreach, &self.foreach), (Part::Class, &self.class), (Part::Pointer, &self.pointer)];
        let single = single.into_iter().filter_map(|(part, expression)| Some((part, expression.as_ref()?)));
        single.chain((0..).zip(&self.parts).map(|(at, (_, expression))| (Part::Field(at), expression)))
    }
}

/// The number by which the compiled program knows an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Foreach,
    Class,
    Pointer,
    Field(usize),
}

impl Part {
    const fn number(self) -> usize {
        match self {
            Self::Foreach => 0,
            Self::Class => 1,
            Self::Pointer => 2,
            Self::Field(at) => 3 + at,
        }
    }
}

/// An expression that is no jq, or that asks for what there is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key of the expression.
    pub key: String,
    /// Line, column, and what is wrong.
    pub message: String,
}

/// The expressions of a script, compiled into one jq program.
pub struct Program {
    script: Script,
    filter: Filter<JustLut<Val>>,
}

impl Program {
    /// Compiles; all mistakes at once.
    pub fn compile(script: Script) -> Result<Self, Vec<Mistake>> {
        let mistakes: Vec<Mistake> = script.expressions().filter_map(|(_, expression)| syntax(expression)).collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        // One program: the definitions that every expression may use are compiled once.
        let mut code = String::new();
        let mut places = Vec::new();
        for (part, expression) in script.expressions() {
            code.push_str(if places.is_empty() { "if" } else { "elif" });
            code.extend([" $__part == ", &part.number().to_string(), " then ("]);
            places.push((code.len(), expression));
            code.push_str(&expression.jq);
            // The line end closes a comment.
            code.push_str("\n) ");
        }
        code.push_str(if places.is_empty() { "null" } else { "else null end" });
        let arena = Arena::default();
        let modules = Loader::new(definitions()).load(&arena, File { code: code.as_str(), path: () });
        let modules = modules.map_err(|_| vec![unexplained(&script)])?;
        let compiler = Compiler::default().with_funs(functions()).with_global_vars(["$envelope", "$__part"]);
        match compiler.compile(modules) {
            Ok(filter) => Ok(Self { script, filter }),
            Err(errors) => {
                let undefined = errors.iter().flat_map(|(_, errors)| errors);
                let mistakes: Vec<_> = undefined.filter_map(|error| undefined_in(&code, &places, error)).collect();
                Err(if mistakes.is_empty() { vec![unexplained(&script)] } else { mistakes })
            }
        }
    }

    /// What the expressions make of a body: a JSON list with one object an item. An object has `class` and, by that class, `pointer` or
    /// the parts that gave something other than null; or only `fault`, where the item could not be read.
    ///
    /// A body of several lines, each a JSON value, is several messages; an empty one is none.
    pub fn run(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut answer = Answer { json: vec![b'['], items: 0 };
        if body.trim_ascii().is_empty() {
            answer.json.push(b']');
            return Ok(answer.json);
        }
        match Document::read(body) {
            Ok(document) => self.document(&document, &mut answer)?,
            Err(error) => {
                let Some(lines) = lines(body) else { return Err(error.into()) };
                for line in lines {
                    match Document::read(line) {
                        Ok(document) => self.document(&document, &mut answer)?,
                        Err(error) => answer.fault(&Refusal::from(error).to_string())?,
                    }
                }
            }
        }
        answer.json.push(b']');
        Ok(answer.json)
    }

    fn document(&self, document: &Document<'_>, answer: &mut Answer) -> Result<(), Refusal> {
        for message in
            messages(document.root(), self.script.unwrap).map_err(|fault| refusal_of(fault.refuses(document.root())))?
        {
            match message {
                Ok(message) => self.message(&message, answer)?,
                Err(words) => answer.fault(&words)?,
            }
        }
        Ok(())
    }

    fn message(&self, Message { content, envelope }: &Message, answer: &mut Answer) -> Result<(), Refusal> {
        let Some(foreach) = &self.script.foreach else { return self.item(content, envelope, answer) };
        for item in self.outputs(Part::Foreach, content, envelope) {
            match item {
                Ok(item) => self.item(&item, envelope, answer)?,
                Err(()) => return answer.fault(&format!("{}: {FAILED}", foreach.key)),
            }
        }
        Ok(())
    }

    fn item(&self, item: &Val, envelope: &Val, answer: &mut Answer) -> Result<(), Refusal> {
        let begin = answer.next_item()?;
        if let Err(words) = self.facts(item, envelope, answer) {
            answer.json.truncate(begin);
            write_fault(&words, answer);
        }
        answer.within_bounds()
    }

    /// Writes the object of one item; what is wrong with it otherwise.
    fn facts(&self, item: &Val, envelope: &Val, answer: &mut Answer) -> Result<(), String> {
        let Script { class, pointer, parts, .. } = &self.script;
        answer.json.extend_from_slice(b"{\"class\":");
        let mut word = b"verdict".to_vec();
        if let Some(class) = class {
            match self.one(Part::Class, class, item, envelope)? {
                Val::TStr(text) => word = text.to_vec(),
                Val::Null => return Err(format!("{}: gave no class for this message", class.key)),
                _ => return Err(format!("{}: expected a text", class.key)),
            }
        }
        value::write_text(&word, &mut answer.json);
        match word.as_slice() {
            b"verdict" | b"verdict_changed" => {
                for (at, (name, expression)) in parts.iter().enumerate() {
                    let is_there = self.fact((name, Part::Field(at), expression), item, envelope, answer)?;
                    if at == 0 && self.script.needs_first && !is_there {
                        return Err(format!("{name} is missing"));
                    }
                }
            }
            b"pointer" => {
                if let Some(expression) = pointer {
                    self.fact(("pointer", Part::Pointer, expression), item, envelope, answer)?;
                }
            }
            _ => {}
        }
        answer.json.push(b'}');
        Ok(())
    }

    /// Writes what a part gives; whether it gave something.
    fn fact(
        &self,
        (name, part, expression): (&str, Part, &Expression),
        item: &Val,
        envelope: &Val,
        answer: &mut Answer,
    ) -> Result<bool, String> {
        let fact = self.one(part, expression, item, envelope)?;
        if matches!(fact, Val::Null) {
            return Ok(false);
        }
        answer.json.push(b',');
        value::write_text(name.as_bytes(), &mut answer.json);
        answer.json.push(b':');
        let written = value::write(&fact, &mut answer.json, ANSWER_BYTES_MAX);
        written.map(|()| true).map_err(|words| format!("{}: {words}", expression.key))
    }

    /// The one value that an expression gives; null where it gives none.
    fn one(&self, part: Part, Expression { key, .. }: &Expression, item: &Val, envelope: &Val) -> Result<Val, String> {
        let mut outputs = self.outputs(part, item, envelope);
        let first = match outputs.next() {
            None => return Ok(Val::Null),
            Some(Ok(first)) => first,
            Some(Err(())) => return Err(format!("{key}: {FAILED}")),
        };
        match outputs.next() {
            None => Ok(first),
            Some(_) => Err(format!("{key}: gave more than one value: collect them in [ ], or take the first( )")),
        }
    }

    fn outputs(&self, part: Part, input: &Val, envelope: &Val) -> impl Iterator<Item = Result<Val, ()>> {
        let vars = Vars::new([envelope.clone(), Val::from(part.number())]);
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, vars);
        self.filter.id.run((context, input.clone())).map(|output| output.map_err(drop))
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("script", &self.script).finish_non_exhaustive()
    }
}

/// In this process: for expressions that came with the program.
impl Evaluate for Program {
    fn evaluate(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.run(body)
    }
}

/// Whether a condition holds: a script with a single part. No output at all is no, as it is for `select`.
pub fn condition(evaluate: &dyn Evaluate, body: &[u8]) -> Result<bool, Refusal> {
    let answer = evaluate.evaluate(body)?;
    let odd = || Refusal::Program("the answer is no answer to a condition".to_owned());
    let items: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(&answer).map_err(|_| odd())?;
    let [item] = items.as_slice() else { return Err(odd()) };
    match (item.get("fault"), item.get(CONDITION)) {
        (Some(words), _) => Err(Refusal::Program(words.as_str().unwrap_or_default().to_owned())),
        (None, None | Some(serde_json::Value::Bool(false))) => Ok(false),
        (None, Some(_)) => Ok(true),
    }
}

/// The script of a condition; `key` is where it stands in the config.
pub fn condition_script(key: &str, jq: &str) -> Script {
    let part = (CONDITION.to_owned(), Expression::new(key, jq));
    Script { unwrap: Unwrap::None, parts: vec![part], ..Script::default() }
}

/// Name of a condition's part.
const CONDITION: &str = "holds";

/// The answer, as it grows.
struct Answer {
    json: Vec<u8>,
    items: u64,
}

impl Answer {
    /// Begins an item; where it begins.
    fn next_item(&mut self) -> Result<usize, Refusal> {
        if self.items == ITEMS_MAX {
            return Err(Refusal::Program(format!("more than {ITEMS_MAX} items in one message")));
        }
        if self.items > 0 {
            self.json.push(b',');
        }
        self.items += 1;
        Ok(self.json.len())
    }

    fn fault(&mut self, words: &str) -> Result<(), Refusal> {
        self.next_item()?;
        write_fault(words, self);
        self.within_bounds()
    }

    fn within_bounds(&self) -> Result<(), Refusal> {
        if self.json.len() > ANSWER_BYTES_MAX {
            return Err(Refusal::Program("the expressions gave more than 16 MiB".to_owned()));
        }
        Ok(())
    }
}

fn write_fault(words: &str, answer: &mut Answer) {
    answer.json.extend_from_slice(b"{\"fault\":");
    value::write_text(words.as_bytes(), &mut answer.json);
    answer.json.push(b'}');
}

fn refusal_of(error: NormalizeError) -> Refusal {
    match error {
        NormalizeError::Json(words) => Refusal::Json(words),
        NormalizeError::Unknown(words) | NormalizeError::Field(words) => Refusal::Program(words),
    }
}

/// The lines of a body that is no JSON value as a whole, if its first two are: a feed or a stream.
fn lines(body: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let lines = || body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut starts = lines().take(2);
    let is_feed = starts.next()?.starts_with(b"{") && starts.next()?.starts_with(b"{");
    is_feed.then(lines)
}

/// What is wrong with an expression by itself.
fn syntax(Expression { key, jq }: &Expression) -> Option<Mistake> {
    let mistake = |message: String| Some(Mistake { key: key.clone(), message });
    if jq.len() > EXPRESSION_BYTES_MAX {
        return mistake(format!("longer than {} KiB", EXPRESSION_BYTES_MAX >> 10));
    }
    if is_too_deep(jq) {
        return mistake(
            "nested too deep: over 100 open brackets, or 200 operators in a row; make it several expressions"
                .to_owned(),
        );
    }
    let arena = Arena::default();
    let errors = Loader::new([]).load(&arena, File { code: jq.as_str(), path: () }).err()?;
    let (_, error) = errors.first()?;
    match error {
        load::Error::Io(_) => {
            mistake("modules cannot be loaded here: write the definitions into the expression".to_owned())
        }
        load::Error::Lex(errors) => {
            let (expected, found) = errors.first()?;
            mistake(expected_at(jq, expected.as_str(), found))
        }
        load::Error::Parse(errors) => {
            let (expected, found) = errors.first()?;
            mistake(expected_at(jq, expected.as_str(), found))
        }
    }
}

fn expected_at(jq: &str, expected: &str, found: &str) -> String {
    let at = load::span(jq, found).start;
    let found = if at >= jq.len() { "but the expression ends here" } else { "but found something else" };
    format!("{}: expected {expected}, {found}", place(jq, at))
}

/// An unknown name in the joined program, as a mistake of the expression it stands in.
fn undefined_in(code: &str, places: &[(usize, &Expression)], (name, kind): &compile::Error<&str>) -> Option<Mistake> {
    let at = load::span(code, name).start;
    let (begin, Expression { key, jq }) = places.iter().rev().find(|(begin, _)| *begin <= at)?;
    let kind = match kind {
        compile::Undefined::Filter(arguments) => format!("there is no function {name}/{arguments} here"),
        _ => format!("there is no {} {name} here", kind.as_str()),
    };
    Some(Mistake { key: key.clone(), message: format!("{}: {kind}", place(jq, at - begin)) })
}

/// Each expression compiles, and all together do not: nothing that an expression can do.
fn unexplained(script: &Script) -> Mistake {
    let key = script.expressions().next().map(|(_, expression)| expression.key.clone()).unwrap_or_default();
    Mistake {
        key,
        message: "the expressions cannot be compiled together; this is a fault of ours, please report it".to_owned(),
    }
}

/// Line and column, from 1, as editors count them.
fn place(jq: &str, at: usize) -> String {
    let before = &jq[..jq.floor_char_boundary(at)];
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    match before.matches('\n').count() {
        0 => format!("column {column}"),
        lines => format!("line {}, column {column}", lines + 1),
    }
}

const FAILED: &str = "the expression failed on this message";
/// Most bytes of an answer: a page of ten MiB gives less, and normalize holds it in memory.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Most items of one message: pages of platforms have hundreds, and each item takes some twenty expressions.
const ITEMS_MAX: u64 = 10_000;
/// Longest expression: those of the shipped packs have less than one KiB.
const EXPRESSION_BYTES_MAX: usize = 16 << 10;
