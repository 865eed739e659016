//! Instructions of the tile unit on machines without one.
//!
//! There each of them is an invalid opcode, which Linux hands to the process as the signal SIGILL. The handler here takes
//! the instruction apart, computes it on a state of the thread, and lets the thread go on behind it. Whatever is none of
//! these instructions goes to the handler that was there before.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::decode::{LONGEST, Memory, Operation, decode};
use super::unit::{CONFIGURATION, Refused, Unit};
use crate::isa::Isa;

thread_local! {
    /// The unit of this thread. Made at compile time and never dropped, so that the handler's first touch allocates nothing.
    static UNIT: UnsafeCell<Unit> = const { UnsafeCell::new(Unit::new()) };
}

/// Whether the handler is there.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// What SIGILL did before.
static EARLIER: OnceLock<libc::sigaction> = OnceLock::new();

/// Whether the handler is there.
pub(super) fn is_installed() -> bool {
    INSTALLED.load(Ordering::Acquire)
}

/// Installs the handler, once.
pub(super) fn install() -> Result<(), String> {
    static RESULT: OnceLock<Result<(), String>> = OnceLock::new();
    RESULT.get_or_init(install_now).clone()
}

fn install_now() -> Result<(), String> {
    if !Isa::Avx512.has_bf16() || !is_x86_feature_detected!("avx512vnni") {
        return Err("AMX is emulated on machines with AVX512-BF16 and AVX512-VNNI only".to_owned());
    }
    let mut earlier = MaybeUninit::uninit();
    // SAFETY: asks for the action of a signal, which is written to a live local variable.
    if unsafe { libc::sigaction(libc::SIGILL, std::ptr::null(), earlier.as_mut_ptr()) } != 0 {
        return Err(format!("SIGILL cannot be handled: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded and wrote it.
    let _ = EARLIER.set(unsafe { earlier.assume_init() });
    // SAFETY: a sigaction of zeros is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and does what a handler may: it allocates nothing,
    // locks nothing and touches no state but its thread's.
    if unsafe { libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(format!("SIGILL cannot be handled: {}", std::io::Error::last_os_error()));
    }
    INSTALLED.store(true, Ordering::Release);
    Ok(())
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes the thread's registers, which are this handler's alone until it returns.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: the thread was about to run this instruction.
    if unsafe { step(registers) }.is_err() {
        pass_on(signal, info, context);
    }
}

/// Computes the instruction that the thread is at and moves on behind it.
///
/// # Safety
/// The registers are those of a thread that is about to run an instruction and may touch the memory it names.
unsafe fn step(registers: &mut [libc::greg_t; 23]) -> Result<(), Refused> {
    let at = registers[libc::REG_RIP as usize] as u64;
    let mut bytes = [0; LONGEST];
    for i in 0..LONGEST {
        let address = at + i as u64;
        // The instruction may be the last of its mapping: the next page is only touched where it goes on there.
        if i > 0 && address.is_multiple_of(4096) && decode(&bytes[..i]).is_some() {
            break;
        }
        // SAFETY: the processor read the bytes of the instruction, and these are no further than its page where that is
        // all of it.
        bytes[i] = unsafe { std::ptr::read_volatile(address as *const u8) };
    }
    let (operation, length) = decode(&bytes).ok_or(Refused)?;
    let next = at + length as u64;
    let unit = UNIT.with(UnsafeCell::get);
    // SAFETY: the unit is this thread's, and the handler is not entered again while it runs: nothing here is such an
    // instruction.
    let unit = unsafe { &mut *unit };
    let register = |number: Option<u8>| number.map_or(0, |number| general(registers, number));
    let start = |memory: &Memory| {
        let next = if memory.from_next { next } else { 0 };
        register(memory.base).wrapping_add(memory.displacement as i64 as u64).wrapping_add(next)
    };
    let stretch = |memory: &Memory| register(memory.index) << memory.scale;
    let whole = |memory: &Memory| start(memory).wrapping_add(stretch(memory));
    // SAFETY: the thread may touch what its instruction names, for the extents that the tiles' shapes give.
    unsafe {
        match operation {
            Operation::Configure(memory) => {
                let bytes = (whole(&memory) as *const [u8; CONFIGURATION]).read_unaligned();
                unit.configure(&bytes)?;
            }
            Operation::StoreConfiguration(memory) => {
                (whole(&memory) as *mut [u8; CONFIGURATION]).write_unaligned(unit.configuration());
            }
            Operation::Release => unit.release(),
            Operation::Zero(tile) => unit.zero(tile.into())?,
            Operation::Load(tile, memory) => unit.load(tile.into(), start(&memory), stretch(&memory))?,
            Operation::Store(tile, memory) => unit.store(tile.into(), start(&memory), stretch(&memory))?,
            Operation::Multiply { factors, sums, left, right } => {
                unit.multiply(factors, sums.into(), left.into(), right.into())?;
            }
        }
    }
    registers[libc::REG_RIP as usize] = next as libc::greg_t;
    Ok(())
}

/// The general register of a number as instructions encode it.
fn general(registers: &[libc::greg_t; 23], number: u8) -> u64 {
    use libc::{
        REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX, REG_RBP, REG_RBX,
        REG_RCX, REG_RDI, REG_RDX, REG_RSI, REG_RSP,
    };
    const ORDER: [libc::c_int; 16] = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10,
        REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    ];
    registers[ORDER[usize::from(number & 15)] as usize] as u64
}

/// Does what would have been done without this handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(earlier) = EARLIER.get() else { return };
    match earlier.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: restores the default, which ends the process when the instruction runs once more.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if earlier.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: a handler that was installed with SA_SIGINFO has this signature.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: a handler that was installed without SA_SIGINFO has this signature.
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}
