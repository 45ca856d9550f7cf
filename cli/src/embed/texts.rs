use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::Path,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{args::EmbedArgs, output::note};

/// A line of `--json-lines`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Object { text: String },
}

/// The texts of the command line, of the file, or of the standard input, in their order.
pub(super) fn read(args: &EmbedArgs) -> Result<Vec<String>> {
    if !args.texts.is_empty() {
        return Ok(args.texts.clone());
    }
    let (source, bytes) = match args.file.as_deref() {
        Some(file) if file != Path::new("-") => {
            (file.display().to_string(), fs::read(file).with_context(|| file.display().to_string())?)
        }
        _ => {
            let mut bytes = Vec::new();
            let mut input = io::stdin().lock();
            if input.is_terminal() {
                note!("one text a line; the end of the input ends it (Ctrl-D, on Windows Ctrl-Z)");
            }
            input.read_to_end(&mut bytes).context("the standard input")?;
            ("the standard input".to_string(), bytes)
        }
    };
    let texts = parse(&bytes, args.json_lines).context(source.clone())?;
    if texts.is_empty() {
        bail!(
            "there are no texts in {source}: give some as arguments, one a line in --file FILE, or on the standard input"
        );
    }
    Ok(texts)
}

/// One text a line.
fn parse(bytes: &[u8], json: bool) -> Result<Vec<String>> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let lines = lines.split(|&byte| byte == b'\n').enumerate();
    lines
        .map(|(i, line)| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line).with_context(|| format!("line {}", i + 1))?;
            if !json {
                return Ok(line.to_string());
            }
            match serde_json::from_str(line) {
                Ok(Line::Text(text) | Line::Object { text }) => Ok(text),
                Err(_) => bail!("line {}: expected a JSON string, or an object with a string `text`: {line}", i + 1),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_line_is_a_text() {
        let lines = |text: &str| parse(text.as_bytes(), false).expect("UTF-8");
        assert_eq!(lines("\u{feff}one\r\n\n three \n"), ["one", "", " three "]);
        assert_eq!(lines("no end"), ["no end"]);
        assert_eq!(lines("\n"), [""]);
        assert!(lines("").is_empty());
        let message = format!("{:#}", parse(b"fine\n\xff\n", false).expect_err("not UTF-8"));
        assert!(message.contains("line 2") && message.contains("utf-8"), "{message}");
    }

    #[test]
    fn a_json_line_can_hold_line_breaks() {
        let texts = parse(b"\"a\\nb\"\n{\"text\": \"c\", \"id\": 7}\n", true).expect("JSON");
        assert_eq!(texts, ["a\nb", "c"]);
        for wrong in ["7", "{\"txt\": \"c\"}", "", "\"open"] {
            let message = parse(format!("\"a\"\n{wrong}\n\"b\"").as_bytes(), true).expect_err("refused").to_string();
            assert!(message.contains("line 2: expected a JSON string"), "{message}");
        }
    }
}
