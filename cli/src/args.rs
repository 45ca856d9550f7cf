use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use serde::Serialize;
use tilewise::{gpu::Gpu, tune::Table};

use crate::output::note;

/// Fused masked attention, layer norm and matmul on wgpu, checked against a CPU reference.
///
/// Exits with 1 if a check fails or something goes wrong, and with 2 if the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "tilewise", version, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which adapter to use.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct DeviceArgs {
    /// The adapter: its number in `tilewise info`, or a part of its name. Default: WGPU_ADAPTER_NAME, or the best GPU.
    #[arg(long, global = true, value_name = "NUMBER|NAME")]
    adapter: Option<String>,
    /// Keep the driver's bounds checks and loop bounds in every shader.
    #[arg(long, global = true)]
    checked_shaders: bool,
    /// The table of `tilewise tune`. Default: TILEWISE_TUNED, or a file of this adapter in the user's cache folder.
    #[arg(long, global = true, value_name = "FILE")]
    tuned: Option<PathBuf>,
    /// Leave the table of `tilewise tune` aside.
    #[arg(long, global = true, conflicts_with = "tuned")]
    untuned: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List adapters: limits, features, and which kernel variants can run and why not.
    Info(InfoArgs),
    /// Run every kernel and variant over its case table and compare with the CPU reference.
    Verify(VerifyArgs),
    /// Time the kernels, beside the adapter's ceilings. Exits with 1 if a figure is above its ceiling.
    Bench(BenchArgs),
    /// Time the variants of every kernel on this adapter, and remember the fastest.
    Tune(TuneArgs),
    /// Show where the time of a graph goes: each step beside what limits it, gaps, fusion, the host.
    Profile(ProfileArgs),
    /// Run a graph on the inputs of a safetensors file.
    Run(RunArgs),
    /// Find where your own implementation first departs from a model, and which mistake gives its numbers.
    Diff(DiffArgs),
    /// Compare a graph's gradients with differences of its outputs, and the device's with the reference's.
    Gradcheck(GradcheckArgs),
    /// Show how a graph runs: fusions, kernels, buffers, WGSL.
    Explain(ExplainArgs),
    /// List the shader modules by family, or write each kernel with all that it imports.
    Shaders(ShadersArgs),
    /// Turn texts into vectors with a BERT of sentence-transformers.
    Embed(EmbedArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InfoArgs {
    /// One line per adapter; fails if there is none.
    #[arg(long, conflicts_with = "json")]
    pub(crate) brief: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// One telling case of each variant.
    #[arg(long, conflicts_with_all = ["quick", "full"])]
    pub(crate) brief: bool,
    /// Small cases of every option and edge. On a software adapter most of the time goes to compiling, the first time.
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// Every case (the default).
    #[arg(long)]
    pub(crate) full: bool,
    /// Only this kernel family; may be given several times.
    #[arg(long, value_name = "FAMILY")]
    pub(crate) kernel: Vec<String>,
    /// Seed of the random cases.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// Small sizes, one round: shows that every benchmark runs; its figures mean little.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Sizes that fill a large GPU, up to 8192³ and 16,384 tokens; far too much for a software adapter.
    #[arg(long, conflicts_with = "quick")]
    pub(crate) large: bool,
    /// Only workloads whose name contains this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub(crate) kernel: Vec<String>,
    /// Time every variant that can run, not only the one that is chosen.
    #[arg(long)]
    pub(crate) variants: bool,
    /// Rounds over the workloads; each round gives one sample of each.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "quick")]
    pub(crate) rounds: u32,
    /// Take the figures of this saved run instead of measuring.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "large", "variants", "rounds", "save", "commit"])]
    pub(crate) from: Option<PathBuf>,
    /// Compare with this saved run: a ratio for each workload, and whether it is more than noise.
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,
    /// Compare though the saved run is of another adapter or machine.
    #[arg(long, requires = "compare")]
    pub(crate) across_adapters: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print Markdown tables, as documentation has them.
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Write the figures as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Draw the rates as bars to this SVG file.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Draw the rates under the adapter's ceilings to this SVG file.
    #[arg(long, value_name = "FILE")]
    pub(crate) roofline: Option<PathBuf>,
    /// The commit that was built, for the record. Default: the environment variable TILEWISE_COMMIT.
    #[arg(long, value_name = "HASH")]
    pub(crate) commit: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TuneArgs {
    /// A graph, as JSON, whose kernels are tuned. Default: the workloads of `tilewise bench`.
    pub(crate) graph: Option<PathBuf>,
    /// Inputs, parameters and states of the graph by name, as safetensors; lengths and ids must be there, the rest is drawn
    /// at random. May be given several times.
    #[arg(long, value_name = "FILE", requires = "graph")]
    pub(crate) inputs: Vec<PathBuf>,
    /// Only workloads whose name contains this text; may be given several times.
    #[arg(long, value_name = "TEXT", conflicts_with = "graph")]
    pub(crate) kernel: Vec<String>,
    /// The small workloads.
    #[arg(long, conflicts_with = "graph")]
    pub(crate) quick: bool,
    /// Seconds that it may take; kernels that aren't measured by then keep their default.
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS", value_parser = positive)]
    pub(crate) budget: f64,
    /// Also measure kernels that are in the table already.
    #[arg(long)]
    pub(crate) again: bool,
}

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("subject").required(true).args(["graph", "workload"]))]
pub(crate) struct ProfileArgs {
    /// The graph, as JSON.
    pub(crate) graph: Option<PathBuf>,
    /// A workload of `bench` instead: the first whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) workload: Option<String>,
    /// Take the workload from those of `bench --large`.
    // Beside a graph clap waives what is required, as the two exclude each other.
    #[arg(long, requires = "workload", conflicts_with = "graph")]
    pub(crate) large: bool,
    /// Inputs, parameters and states by name, as safetensors; may be given several times. Others are drawn at random.
    #[arg(long, value_name = "FILE", requires = "graph", conflicts_with = "workload")]
    pub(crate) inputs: Vec<PathBuf>,
    /// Runs of which the medians are taken.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Don't measure the adapter's ceilings.
    #[arg(long)]
    pub(crate) no_ceilings: bool,
    /// Write a trace for chrome://tracing or ui.perfetto.dev to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// The graph, as JSON.
    pub(crate) graph: PathBuf,
    /// Inputs, parameters and states by name, as safetensors; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: Vec<PathBuf>,
    /// Where the outputs go, as safetensors.
    #[arg(long, value_name = "FILE")]
    pub(crate) outputs: Option<PathBuf>,
    /// Compare each output with the CPU reference; not for `--device cpu`. Ends with 1 if one is wrong, or if its bound is too large
    /// to tell.
    #[arg(long)]
    pub(crate) check: bool,
    /// Where to run.
    #[arg(long, value_enum, default_value_t = Device::Gpu)]
    pub(crate) device: Device,
    /// Print the GPU time of each step; not for `--device cpu`.
    #[arg(long)]
    pub(crate) profile: bool,
}

/// Where a graph runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// On the adapter.
    Gpu,
    /// In the CPU reference: exact, slow.
    Cpu,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DiffArgs {
    /// The model: a description, as {"model": "decoder_layer", "width": 20, …}, or a graph, as JSON.
    pub(crate) model: PathBuf,
    /// The outputs of your implementation by module path, and its inputs, as safetensors; may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) dump: Vec<PathBuf>,
    /// Its state_dict: a safetensors file, an index of shards or a folder. Default: the dump has the weights too.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Replace components of the names in dumps and weights, as blocks=layers or model= ; may be given several times.
    #[arg(long, value_name = "THEIRS=OURS")]
    pub(crate) rename: Vec<String>,
    /// The tolerance, relative to the peak of a value. Default: by the dump's dtype and the depth.
    #[arg(long, value_name = "RELATIVE", value_parser = positive)]
    pub(crate) tolerance: Option<f64>,
    /// Where to compute the values for the comparison from the inputs.
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    pub(crate) device: Device,
    /// Everything about each departure, not only about the first.
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShadersArgs {
    /// Write each kernel, with the defaults of its slots, as a complete WGSL module DIR/family-kernel.wgsl.
    #[arg(long, value_name = "DIR")]
    pub(crate) expand: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GradcheckArgs {
    /// The graph, as JSON. Its loss is its only output, if that is a single float, or else all outputs, each element times a fixed
    /// number.
    pub(crate) graph: PathBuf,
    /// Inputs, parameters and states by name, as safetensors; may be given several times. Others are drawn at random.
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: Vec<PathBuf>,
    /// Elements of each value that differences are taken for: each takes four runs of the reference.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
}

impl GradcheckArgs {
    pub(crate) fn samples(&self) -> usize {
        self.samples as usize
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    /// The graph, as JSON.
    pub(crate) graph: PathBuf,
    /// Lower for the portable WebGPU minimum instead of an adapter of this machine.
    #[arg(long)]
    pub(crate) portable: bool,
    /// Print the graph in Graphviz's language instead.
    #[arg(long, conflicts_with_all = ["wgsl", "json"])]
    pub(crate) dot: bool,
    /// Print the WGSL of this step instead.
    #[arg(long, value_name = "STEP", conflicts_with = "json")]
    pub(crate) wgsl: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct EmbedArgs {
    /// The model's folder: config.json, tokenizer.json, model.safetensors and, where it has them, sentence-transformers' files.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// The texts. Without any, and without --file, the standard input is read, one text a line.
    #[arg(value_name = "TEXT")]
    pub(crate) texts: Vec<String>,
    /// Read texts from this file, one a line; `-` is the standard input. A blank line is an empty text.
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub(crate) file: Option<PathBuf>,
    /// Each line is JSON: a string, or an object with a string `text`. So a text can have line breaks.
    #[arg(long, conflicts_with = "texts")]
    pub(crate) json_lines: bool,
    /// What to write.
    #[arg(long, value_enum, default_value_t = EmbedFormat::Json)]
    pub(crate) format: EmbedFormat,
    /// Where to write it. Default: the standard output.
    #[arg(long, value_name = "FILE", required_if_eq("format", "safetensors"))]
    pub(crate) output: Option<PathBuf>,
    /// How tokens become one vector; several, with commas between, are put end to end. Default: as the model's files say.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE")]
    pub(crate) pooling: Vec<PoolingMode>,
    /// Whether vectors get length 1. Default: as the model's files say.
    #[arg(long, value_name = "true|false")]
    pub(crate) normalize: Option<bool>,
    /// The most tokens of a text, the special ones included. Default: as the model's files say.
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// What to do with longer texts.
    #[arg(long, value_enum, default_value_t = LongTexts::Truncate)]
    pub(crate) long: LongTexts,
    /// Put this prompt of the model's files before each text. Default: the one that they say.
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt: Option<String>,
    /// The most tokens that run at once, in texts of similar length; a longer text runs alone. Default: 512 on a software adapter,
    /// else 4096.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) batch_tokens: Option<u32>,
}

/// What `embed` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmbedFormat {
    /// One object: how the vectors were made, and each text with its vector.
    Json,
    /// A line for each text: an object with the text and its vector.
    JsonLines,
    /// Tensors `embeddings` f32 [N, E] and `tokens` i32 [N].
    Safetensors,
    /// How similar each two texts are (the cosine of their vectors), for a handful.
    Table,
}

/// How the tokens of a text become one vector, under sentence-transformers' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum PoolingMode {
    /// The first token's.
    Cls,
    /// The greatest of each feature.
    Max,
    /// The mean.
    Mean,
    /// The sum over the root of the number of tokens.
    MeanSqrtLenTokens,
}

/// What to do with a text of more tokens than the model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LongTexts {
    /// Embed its beginning, and say so.
    Truncate,
    /// Stop.
    Refuse,
}

/// Options of which one makes the other mean nothing: each pair is refused, so that nobody believes in what wasn't done.
impl Args {
    /// The arguments, if each of them can act.
    pub(crate) fn checked(self) -> Result<Self, clap::Error> {
        match self.useless() {
            None => Ok(self),
            Some(message) => Err(Args::command().error(ErrorKind::ArgumentConflict, message)),
        }
    }

    /// What is wrong with an option that could do nothing.
    fn useless(&self) -> Option<String> {
        let device = self.device.given();
        let first = |options: &[(&'static str, bool)]| options.iter().find(|(_, given)| *given).map(|(name, _)| *name);
        let (option, why) = match &self.command {
            Command::Info(_) => {
                let table = [("--tuned", self.device.tuned.is_some()), ("--untuned", self.device.untuned)];
                let checked = [("--checked-shaders", self.device.checked_shaders)];
                (first(&[table[0], table[1], checked[0]])?, "`info` runs no kernel".to_string())
            }
            Command::Shaders(_) => (device?, "`shaders` opens no device".into()),
            Command::Tune(_) => {
                let why = "`tune` writes the table that it leaves aside: leave it out".into();
                (first(&[("--untuned", self.device.untuned)])?, why)
            }
            Command::Run(RunArgs { device: Device::Cpu, profile, check, .. }) => {
                let of_device = [("--profile", *profile)];
                match first(&of_device).or(device) {
                    Some(option) => (option, "it is about a device, and `--device cpu` takes none".into()),
                    None => {
                        let why = "`--device cpu` is the CPU reference that it would compare with".into();
                        (first(&[("--check", *check)])?, why)
                    }
                }
            }
            Command::Diff(DiffArgs { device: Device::Cpu, .. }) => {
                (device?, "it is about a device, and `diff` takes none without `--device gpu`".into())
            }
            Command::Explain(ExplainArgs { dot: true, portable, .. }) => {
                (first(&[("--portable", *portable)]).or(device)?, "`--dot` prints the graph as it was given".into())
            }
            Command::Explain(ExplainArgs { portable: true, .. }) => {
                (device?, "it is about a device, and `--portable` takes none".into())
            }
            Command::Bench(BenchArgs { from: Some(_), .. }) => {
                (device?, "it is about a device, and `--from` takes what was measured".into())
            }
            Command::Verify(_)
            | Command::Bench(_)
            | Command::Profile(_)
            | Command::Run(_)
            | Command::Diff(_)
            | Command::Gradcheck(_)
            | Command::Explain(_)
            | Command::Embed(_) => return None,
        };
        Some(format!("`{option}` can do nothing here: {why}"))
    }
}

/// A number above 0, for options that measure or compare.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err("expected a finite number above 0".into()),
    }
}

impl DeviceArgs {
    /// The first option that is given, whatever it says.
    fn given(&self) -> Option<&'static str> {
        let DeviceArgs { adapter, checked_shaders, tuned, untuned } = self;
        let all = [
            ("--adapter", adapter.is_some()),
            ("--checked-shaders", *checked_shaders),
            ("--tuned", tuned.is_some()),
            ("--untuned", *untuned),
        ];
        all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    /// Whether one was asked for by number or name.
    pub(crate) fn is_chosen(&self) -> bool {
        self.adapter.is_some()
    }

    /// Opens the adapter that was asked for, with what was measured on it.
    pub(crate) fn open(&self) -> Result<Gpu> {
        let gpu = self.open_untuned()?;
        let Some(table) = self.table(&gpu)? else { return Ok(gpu) };
        Ok(gpu.with_choices(table.choices))
    }

    /// The table of what was measured on the adapter, unless it is to be left aside. Says so if the file can't be used.
    pub(crate) fn table(&self, gpu: &Gpu) -> Result<Option<Table>> {
        if self.untuned {
            return Ok(None);
        }
        let path = match &self.tuned {
            Some(path) => path.clone(),
            None => Table::default_path(gpu)?,
        };
        let table = Table::open(path, gpu);
        if let Some(warning) = table.warning() {
            note!("warning: {warning}");
        }
        Ok(Some(table))
    }

    /// Opens the adapter that was asked for.
    pub(crate) fn open_untuned(&self) -> Result<Gpu> {
        let mut builder = Gpu::builder().checked_shaders(self.checked_shaders);
        match self.adapter.as_deref().map(|text| (text, text.parse())) {
            Some((_, Ok(index))) => builder = builder.adapter_index(index),
            Some((name, Err(_))) => builder = builder.adapter(name),
            None => {}
        }
        Ok(builder.build()?)
    }
}
