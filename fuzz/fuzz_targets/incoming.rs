//! A request, framed or of the older program, in one piece and in pieces of a length that the first
//! byte says.
#![no_main]

use std::cell::OnceCell;

use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((piece, request)) = input.split_first() else { return };
    let build = || Builder::new_current_thread().enable_time().build().expect("a runtime");
    RUNTIME.with(|runtime| {
        let read = qubes_rpc::incoming::fuzz_incoming(request, usize::from(*piece));
        runtime.get_or_init(build).block_on(read);
    });
});
