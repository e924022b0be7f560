//! Writes the manual pages and the shell completions of `saltbridged` into a folder, from the
//! definition of its command line: `cargo run -p qubes-rpc --example manual -- FOLDER`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        return told("usage: manual FOLDER", ExitCode::from(2));
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&format!("{}: {error}", folder.display()), ExitCode::FAILURE),
    }
}

fn told(sentence: &str, code: ExitCode) -> ExitCode {
    drop(io::Write::write_all(&mut io::stderr(), format!("{sentence}\n").as_bytes()));
    code
}

/// `man/*.1`, one page for each command, and `completions/`, named as each shell wants it.
fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(qubes_rpc::command(), &man)?;
    for (shell, name) in [
        (Shell::Bash, "saltbridged"),
        (Shell::Zsh, "_saltbridged"),
        (Shell::Fish, "saltbridged.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut qubes_rpc::command(), "saltbridged", &mut text);
        fs::write(completions.join(name), text)?;
    }
    Ok(())
}
