//! Manual pages and shell completions of a program, from the definition of its command line.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap_complete::Shell;

/// Writes them into the folder that is the first argument.
pub(crate) fn write_for(program: &str, command: &clap::Command) -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        return told("usage: FOLDER", ExitCode::from(2));
    };
    match write(&folder, program, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&format!("{}: {error}", folder.display()), ExitCode::FAILURE),
    }
}

fn told(sentence: &str, code: ExitCode) -> ExitCode {
    drop(io::Write::write_all(&mut io::stderr(), format!("{sentence}\n").as_bytes()));
    code
}

/// `man/*.1`, one page for each command, and `completions/`, named as each shell wants it.
fn write(folder: &Path, program: &str, command: &clap::Command) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(command.clone(), &man)?;
    for (shell, name) in [
        (Shell::Bash, program.to_owned()),
        (Shell::Zsh, format!("_{program}")),
        (Shell::Fish, format!("{program}.fish")),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), program, &mut text);
        fs::write(completions.join(name), text)?;
    }
    Ok(())
}
