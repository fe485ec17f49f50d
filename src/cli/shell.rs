//! `completions` and `man`: made from the definition of the command line.

use clap::CommandFactory;

use super::args::{Cli, Completions, Man};
use super::failure::Outcome;
use super::output::Output;
use crate::Error;

/// Prints a completion script.
pub(super) fn completions(out: &mut Output<'_>, args: &Completions) -> Outcome {
    // Made in memory first: the generator panics where its writer fails, and a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mlrs-db", &mut script);
    Ok(out.out.write_all(&script)?)
}

/// Prints the manual page, or writes one per verb.
pub(super) fn man(out: &mut Output<'_>, args: &Man) -> Outcome {
    let Some(dir) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return Ok(out.out.write_all(&page)?);
    };
    let failed = |action| move |source| Error::Io { action, path: dir.clone(), source };
    std::fs::create_dir_all(dir).map_err(failed("create"))?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed("write manual pages to"))?;
    out.note(format_args!("manual pages are in {}", dir.display()));
    Ok(())
}
