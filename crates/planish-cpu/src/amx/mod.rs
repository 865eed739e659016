//! The tile unit of newer x86-64 processors (AMX, Intel SDM volume 1, chapter 18): whole products of small matrices as
//! single instructions.
//!
//! A core has eight tiles of up to 16 rows of 64 bytes. One instruction multiplies a tile of rows with a tile of columns
//! and adds the result to a third: 16 × 16 sums of 32 products of `bf16`, or of 64 products of bytes. That is eight times
//! what the vectors of the same core do in the same time. Rust has no stable intrinsics for it, so `instructions.rs` is
//! inline assembly. The operating system must allow a process to use the unit, see `detect.rs`.
//!
//! Few machines have it. So that the machine code itself is tested on all others, [`emulate()`] lets the processor refuse
//! the instructions one by one, and computes each in the handler of the signal: the encodings, the addresses and the
//! order of the arithmetic are those of the real unit, some microseconds each. It is never chosen by itself.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod decode;
#[cfg(target_arch = "x86_64")]
mod detect;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod emulate;
#[cfg(target_arch = "x86_64")]
pub(crate) mod instructions;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unit;

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests;

/// The rows of a tile at most.
pub(crate) const TILE_ROWS: usize = 16;

/// The words of 32 bits of a row of a tile at most.
pub(crate) const TILE_WORDS: usize = 16;

/// What an instruction multiplies: words of 32 bits by words of 32 bits, into sums of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileProduct {
    /// Two `bf16` by two `bf16`, into an `f32`.
    Bf16,
    /// Four `u8` of the left operand by four `i8` of the right one, into an `i32`.
    U8I8,
}

/// Whether instructions of the tile unit run here: on the machine's, or [emulated](emulate()).
pub fn is_available() -> bool {
    is_real() || is_emulated()
}

/// Whether this machine has a tile unit that multiplies `bf16` and bytes, and this process may use it.
pub fn is_real() -> bool {
    #[cfg(target_arch = "x86_64")]
    return detect::is_usable();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether [`emulate()`] was called in this process and had something to do.
pub fn is_emulated() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return emulate::is_installed();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Makes [`Isa::Amx`](crate::isa::Isa::Amx) run in this process: where the machine has no tile unit, by computing each of
/// its instructions in a handler of the signal that the processor's refusal becomes. For tests; thousands of times slower
/// than the unit.
///
/// An error that says why where that cannot be: on other systems than Linux on x86-64, where the machine has a tile unit
/// that this process may not use (which then refuses only some of its instructions), and without the vector
/// instructions that surround those of the unit.
pub fn emulate() -> Result<(), String> {
    if is_real() {
        return Ok(());
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        if detect::is_switched_on() {
            return Err(
                "this machine has AMX, which the operating system does not let this process use".to_owned()
            );
        }
        emulate::install()
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    Err("AMX is emulated on Linux on x86-64 only".to_owned())
}
