//! Whether the processor has the tile unit, the operating system keeps its state, and this process may use it.
//!
//! Linux switches the 8 KiB of tiles on for those processes only that ask for them (`Documentation/arch/x86/xstate.rst`);
//! the permission is the process's, for threads that run already and those to come. It may be refused, as where a signal
//! stack of a thread has no room for the tiles.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// Bits of leaf 7, register EDX.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;
const AMX_INT8: u32 = 1 << 25;

/// The operating system keeps extended state, leaf 1, register ECX.
const OSXSAVE: u32 = 1 << 27;

/// The state components of the unit in XCR0: the configuration and the tiles.
const TILE_STATE: u64 = 1 << 17 | 1 << 18;

/// Whether instructions of the unit run in this process; asks for the permission once.
pub(super) fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has(AMX_TILE | AMX_BF16 | AMX_INT8) && is_switched_on() && is_permitted())
}

/// Whether the processor has the unit and the operating system has switched it on.
pub(super) fn is_switched_on() -> bool {
    has(AMX_TILE) && __cpuid(1).ecx & OSXSAVE != 0 && enabled_state() & TILE_STATE == TILE_STATE
}

/// Whether the processor names all of these features.
fn has(features: u32) -> bool {
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & features == features
}

/// The state components that the operating system keeps.
fn enabled_state() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: only called where OSXSAVE is set, with which the instruction exists; it reads register 0 of its kind, which
    // always does.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Asks the kernel for the tiles.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call reads its two numbers and changes nothing but the permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Other systems switch the unit on for everybody or nobody, and nobody has tried.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}
