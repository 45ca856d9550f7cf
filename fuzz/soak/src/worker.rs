//! The processes that run cases, and what watches over them.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::{MEMORY, Run, Subject, ledger::Entry, target};

/// Chunks after which a process is replaced: drivers keep what they compiled.
const CHUNKS: u32 = 40;
/// Processes that may die before they ran a case, one after the other.
const STILLBORN: u32 = 3;

/// A line of a worker.
#[derive(Serialize, Deserialize)]
enum Said {
    /// It can begin.
    Ready,
    /// A case begins.
    Case(u64),
    /// It ended, so.
    Outcome(String),
    /// It ended with a fault.
    Fault(String),
}

/// Runs the cases whose first number and count come in lines, and says what became of each.
pub(crate) fn serve(name: &str, seed: u64, memory: usize) -> Result<()> {
    let (subject, target) = (Subject::open(name)?, target(name)?);
    MEMORY.set_limit(memory << 20).map_err(|_| anyhow::anyhow!("{memory} MiB are too few to begin with"))?;
    let say = |said: Said| -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&said)?)?;
        Ok(out.flush()?)
    };
    say(Said::Ready)?;
    for line in io::stdin().lines() {
        let line = line?;
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [first, count] = numbers[..] else { bail!("`{line}` is no range of cases") };
        for case in first..first + count {
            say(Said::Case(case))?;
            match subject.check(&target.case(seed, case)) {
                Ok(outcome) => say(Said::Outcome(format!("{outcome:?}")))?,
                Err(fault) => say(Said::Fault(fault))?,
            }
        }
    }
    Ok(())
}

/// A process that runs cases.
struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<Said>,
    /// The end of what it wrote to its standard error.
    last_words: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    fn start(run: &Run) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        let mut child = Command::new(program)
            .args(["worker", &run.target, "--seed", &run.seed.to_string(), "--memory", &run.memory.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(mut stderr)) = pipes else { bail!("the process has no pipes") };
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(io::Result::ok);
            lines.filter_map(|line| serde_json::from_str(&line).ok()).all(|said| send.send(said).is_ok());
        });
        let last_words = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&last_words);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut bytes) {
                let Ok(mut last) = heard.lock() else { return };
                last.extend_from_slice(&bytes[..n]);
                let surplus = last.len().saturating_sub(4096);
                last.drain(..surplus);
            }
        });
        Ok(Process { child, stdin, lines, last_words })
    }

    /// Ends the process, and says how it ended if it had already.
    fn end(mut self, why: &str) -> String {
        drop(self.stdin);
        // What is dying gets a moment to be dead.
        std::thread::sleep(Duration::from_millis(50));
        let ended = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let words =
            self.last_words.lock().map(|words| String::from_utf8_lossy(&words).into_owned()).unwrap_or_default();
        let status = ended.map_or_else(String::new, |status| format!(" ({status})"));
        format!("{why}{status}\n{words}")
    }
}

/// Runs chunks in a process, which is replaced if a case ends it.
pub(crate) fn drive(
    run: &Run,
    size: u64,
    next: impl Fn() -> Option<u64>,
    send: &Sender<Entry>,
    bar: &ProgressBar,
) -> Result<()> {
    let timeout = Duration::from_secs(run.timeout);
    let mut process: Option<Process> = None;
    let (mut used, mut stillborn) = (0, 0);
    while let Some(chunk) = next() {
        if used >= CHUNKS {
            if let Some(process) = process.take() {
                process.end("");
            }
            used = 0;
        }
        used += 1;
        let (mut at, end) = (chunk * size, ((chunk + 1) * size).min(run.cases));
        let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
        while at < end {
            let mut worker = match process.take() {
                Some(worker) => worker,
                None => {
                    let worker = Process::start(run)?;
                    // Opening a device may take longer than a case.
                    if !matches!(worker.lines.recv_timeout(timeout.max(Duration::from_secs(60))), Ok(Said::Ready)) {
                        stillborn += 1;
                        let why = worker.end("a process could not begin");
                        if stillborn >= STILLBORN {
                            bail!(why);
                        }
                        continue;
                    }
                    worker
                }
            };
            stillborn = 0;
            // A process that is gone already is noticed below.
            let _ = writeln!(worker.stdin, "{at} {}", end - at);
            let mut begun = at;
            let fault = loop {
                if at == end {
                    break None;
                }
                let done = match worker.lines.recv_timeout(timeout) {
                    Ok(Said::Ready) => continue,
                    Ok(Said::Case(case)) => {
                        begun = case;
                        continue;
                    }
                    Ok(Said::Outcome(outcome)) => {
                        *outcomes.entry(outcome).or_default() += 1;
                        None
                    }
                    Ok(Said::Fault(fault)) => Some(fault),
                    Err(RecvTimeoutError::Timeout) => break Some(format!("no end within {} s", run.timeout)),
                    Err(RecvTimeoutError::Disconnected) => break Some("the process died".into()),
                };
                if let Some(fault) = done {
                    *outcomes.entry("Fault".into()).or_default() += 1;
                    send.send(Entry::Fault { case: begun, fault })?;
                }
                at = begun + 1;
                bar.inc(1);
            };
            match fault {
                None => process = Some(worker),
                Some(why) => {
                    let fault = worker.end(&why);
                    *outcomes.entry("Fault".into()).or_default() += 1;
                    send.send(Entry::Fault { case: begun, fault })?;
                    at = begun + 1;
                    bar.inc(1);
                }
            }
        }
        send.send(Entry::Chunk { chunk, outcomes })?;
    }
    if let Some(process) = process {
        process.end("");
    }
    Ok(())
}
