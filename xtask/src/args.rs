//! Command lines: a few flags, a few names, and what follows `--`.

use anyhow::Result;

/// A command line that a verb cannot understand, with the remedy.
#[derive(Debug)]
pub(crate) struct Error(String);

impl Error {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// A verb's arguments, sorted.
#[derive(Debug, Default)]
pub(crate) struct Args {
    flags: Vec<String>,
    /// What is neither a flag nor behind `--`.
    pub(crate) names: Vec<String>,
    /// Everything behind the first `--`, untouched.
    pub(crate) rest: Vec<String>,
}

impl Args {
    /// Sorts `args`; flags other than `flags` and more than `names_max` names are refused.
    pub(crate) fn parse(args: &[String], flags: &[&str], names_max: usize) -> Result<Self> {
        let mut parsed = Self::default();
        let mut left = args.iter();
        while let Some(arg) = left.next() {
            if arg == "--" {
                parsed.rest = left.cloned().collect();
                break;
            } else if flags.contains(&arg.as_str()) {
                parsed.flags.push(arg.clone());
            } else if arg.starts_with('-') || parsed.names.len() == names_max {
                return Err(Error(format!(
                    "unknown argument `{arg}`; `--help` lists what there is, and what is meant \
                     for the program that is run goes behind `--`"
                ))
                .into());
            } else {
                parsed.names.push(arg.clone());
            }
        }
        Ok(parsed)
    }

    /// For verbs that take nothing at all.
    pub(crate) fn none(args: &[String]) -> Result<()> {
        match args.first() {
            None => Ok(()),
            Some(arg) => {
                Err(Error(format!("unknown argument `{arg}`; this verb takes none")).into())
            }
        }
    }

    /// Was `flag` given?
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }
}

/// Is `--help` asked of the verb itself, not of what it runs?
pub(crate) fn wants_help(args: &[String]) -> bool {
    let own = args.iter().take_while(|arg| *arg != "--");
    own.into_iter().any(|arg| arg == "--help" || arg == "-h")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn what_follows_the_dashes_is_passed_on_untouched() {
        let args = Args::parse(&words("--quick calls -- --quick -- x"), &["--quick"], 1);
        let args = args.expect("valid");
        assert!(args.has("--quick"));
        assert_eq!(args.names, ["calls"]);
        assert_eq!(args.rest, ["--quick", "--", "x"]);
    }

    #[test]
    fn an_unknown_flag_is_refused_by_name() {
        let error = Args::parse(&words("--quik"), &["--quick"], 1).expect_err("no such flag");
        assert!(error.is::<Error>());
        assert!(error.to_string().contains("`--quik`"), "{error}");
    }

    #[test]
    fn help_behind_the_dashes_belongs_to_the_program() {
        assert!(wants_help(&words("calls --help")));
        assert!(!wants_help(&words("-- --help")));
    }
}
