//! Each library in a process of its own, so that one that crashes takes nothing with it: what the processes say to each other.
//!
//! A worker says [`Response::Ready`] and then answers each request with one line of JSON. `protocol.py` does the same.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write, stdin},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::{
    case::{Case, Operand},
    peer::{Operands, Peer, Result, Runner},
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// Load a case and run it once. The operands' values lie end to end in `operands.f32` of the folder; the result goes to
    /// `output.f32`.
    Load { case: Case, operands: Vec<(String, Vec<usize>)>, folder: PathBuf },
    /// Run it several times.
    Run { times: usize },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    Ready(About),
    /// Seconds from the operands to the first result.
    Loaded {
        first_call: f64,
    },
    /// The library has no such operation.
    Unsupported,
    /// Seconds of a run.
    Ran {
        seconds: f64,
    },
    Failed {
        error: String,
    },
}

/// Who is timed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub name: String,
    pub device: String,
    pub adapter: Option<String>,
}

/// Answers requests until there are none.
pub fn serve(peer: Result<Box<dyn Peer>>) -> Result<()> {
    let peer = match peer {
        Ok(peer) => peer,
        Err(error) => return respond(&Response::Failed { error: error.to_string() }),
    };
    respond(&Response::Ready(About { name: peer.name(), device: peer.device(), adapter: peer.adapter() }))?;
    let mut loaded = None;
    for line in stdin().lock().lines() {
        let response = match serde_json::from_str(&line?)? {
            Request::Load { case, operands, folder } => {
                loaded = None;
                load(peer.as_ref(), &case, operands, &folder, &mut loaded)
            }
            Request::Run { times } => run(&mut loaded, times),
        };
        respond(&response.unwrap_or_else(|error| Response::Failed { error: error.to_string() }))?;
    }
    Ok(())
}

fn respond(response: &Response) -> Result<()> {
    println!("{}", serde_json::to_string(response)?);
    Ok(())
}

fn load(
    peer: &dyn Peer,
    case: &Case,
    operands: Vec<(String, Vec<usize>)>,
    folder: &Path,
    loaded: &mut Option<Box<dyn Runner>>,
) -> Result<Response> {
    let mut values = read_floats(&folder.join("operands.f32"))?.into_iter();
    let operands = operands.into_iter().map(|(name, shape)| {
        let values = values.by_ref().take(shape.iter().product()).collect();
        Operand { name, shape, values }
    });
    let operands = Operands::new(operands.collect());
    let start = Instant::now();
    let Some(mut runner) = peer.load(case, operands)? else { return Ok(Response::Unsupported) };
    runner.run(1)?;
    let first_call = start.elapsed().as_secs_f64();
    write_floats(&folder.join("output.f32"), &[&runner.output()?])?;
    *loaded = Some(runner);
    Ok(Response::Loaded { first_call })
}

fn run(loaded: &mut Option<Box<dyn Runner>>, times: usize) -> Result<Response> {
    let runner = loaded.as_mut().ok_or("nothing is loaded")?;
    let start = Instant::now();
    runner.run(times)?;
    Ok(Response::Ran { seconds: start.elapsed().as_secs_f64() / times as f64 })
}

fn read_floats(file: &Path) -> Result<Vec<f32>> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}

fn write_floats(file: &Path, parts: &[&[f32]]) -> Result<()> {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().flat_map(|value| value.to_le_bytes())).collect();
    Ok(fs::write(file, bytes).map_err(|error| format!("{}: {error}", file.display()))?)
}

/// How a worker is started.
#[derive(Clone, Debug)]
pub struct Launch {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Launch {
    /// This program as the worker of a library.
    pub fn rust(peer: &str) -> Result<Self> {
        // A script that runs programs on another driver has to run the worker as well.
        let own: OsString = env::args_os().next().ok_or("the program doesn't know its name")?;
        let mut arguments: Vec<OsString> = vec!["--worker".into(), peer.into()];
        let program = match env::var_os("TILEWISE_RUNNER") {
            Some(runner) => {
                arguments.insert(0, own);
                runner
            }
            None => env::current_exe()?.into(),
        };
        Ok(Launch { program, arguments, environment: Vec::new() })
    }

    /// A script beside `cases.json`, run by `$PYTHON` or `python3`.
    pub fn python(script: &str) -> Self {
        let program = env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        Launch { program, arguments: vec![script.into()], environment: Vec::new() }
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With every cache of compiled shaders in this folder.
    fn cached_in(mut self, folder: &Path) -> Self {
        // By the system's convention, Mesa's, and NVIDIA's.
        let names = ["XDG_CACHE_HOME", "MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"];
        self.environment.extend(names.map(|name| (name, folder.to_path_buf())));
        self
    }
}

/// A worker, or how to have one again after it came to an end.
pub struct Worker {
    pub about: About,
    launch: Launch,
    process: Option<Process>,
    folder: PathBuf,
}

struct Process {
    child: Child,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
}

/// What became of loading a case.
pub struct Loaded {
    /// Seconds from the operands to the first result.
    pub first_call: f64,
    pub output: Vec<f32>,
}

impl Worker {
    /// Starts it. The folder, which the operands are in, is for what it writes.
    pub fn start(launch: Launch, folder: &Path) -> Result<Self> {
        let (process, about) = Process::start(&launch)?;
        Ok(Worker { about, launch, process: Some(process), folder: folder.to_path_buf() })
    }

    /// The same in a new process, whose caches of compiled shaders are in this folder.
    pub fn anew(&self, cache: &Path) -> Result<Self> {
        Worker::start(self.launch.clone().cached_in(cache), &self.folder)
    }

    /// Loads a case; `None` if the library can't do it.
    pub fn load(&mut self, case: &Case, operands: &[Operand]) -> Result<Option<Loaded>> {
        let list = operands.iter().map(|operand| (operand.name.clone(), operand.shape.clone())).collect();
        let request = Request::Load { case: case.clone(), operands: list, folder: self.folder.clone() };
        match self.ask(&request)? {
            Response::Loaded { first_call } => {
                Ok(Some(Loaded { first_call, output: read_floats(&self.folder.join("output.f32"))? }))
            }
            Response::Unsupported => Ok(None),
            other => Err(format!("an odd answer: {other:?}").into()),
        }
    }

    /// Seconds of a run, of several.
    pub fn run(&mut self, times: usize) -> Result<f64> {
        match self.ask(&Request::Run { times })? {
            Response::Ran { seconds } => Ok(seconds),
            other => Err(format!("an odd answer: {other:?}").into()),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Response> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => Process::start(&self.launch)?.0,
        };
        let response = process.ask(request)?;
        self.process = Some(process);
        match response {
            Response::Failed { error } => Err(error.into()),
            response => Ok(response),
        }
    }
}

impl Process {
    fn start(launch: &Launch) -> Result<(Self, About)> {
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", launch.program.display()))?;
        let (Some(requests), Some(responses)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a process without pipes".into());
        };
        let mut process = Process { child, requests, responses: BufReader::new(responses) };
        match process.response()? {
            Response::Ready(about) => {
                process.signal("STOP");
                Ok((process, about))
            }
            Response::Failed { error } => Err(error.into()),
            other => Err(format!("an odd answer: {other:?}").into()),
        }
    }

    /// Stops it, or lets it go on (`CONT`): what its threads do while nothing is asked of it would take time from the one that
    /// is timed. Where there are no signals, it is left alone.
    fn signal(&self, name: &str) {
        if cfg!(unix) {
            let _ = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Response> {
        self.signal("CONT");
        // A process that has ended says so when it is asked for its answer.
        let sent = writeln!(self.requests, "{}", serde_json::to_string(request)?);
        let response = self.response()?;
        sent?;
        self.signal("STOP");
        Ok(response)
    }

    /// The next line that is an answer. A library may print as well.
    fn response(&mut self) -> Result<Response> {
        let mut line = String::new();
        while self.responses.read_line(&mut line)? > 0 {
            if let Ok(response) = serde_json::from_str(&line) {
                return Ok(response);
            }
            eprint!("{line}");
            line.clear();
        }
        Err(format!("its process ended ({})", self.child.wait()?).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to be saved, and a library may take long to end by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the operands for the workers.
pub fn write_operands(folder: &Path, operands: &[Operand]) -> Result<()> {
    let parts: Vec<&[f32]> = operands.iter().map(|operand| &operand.values[..]).collect();
    write_floats(&folder.join("operands.f32"), &parts)
}
