//! Which vector instructions this machine has, and which of them to use.
//!
//! One binary holds the kernels of every instruction set; this module picks at run time. The choice can be
//! lowered through the environment so that every path is tested on one machine.

use std::fmt;
use std::sync::OnceLock;

use crate::amx;
use crate::element::ElementType;

/// The environment variable that overrides the choice: `portable`, `avx2`, `avx512`, `amx` or `amx-emulated`.
pub const ISA_VARIABLE: &str = "PLANISH_ISA";

/// An instruction set kernels are compiled for, from the narrowest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust over arrays of eight numbers; runs everywhere.
    Portable,
    /// x86-64 with AVX2, FMA and F16C: vectors of 8 numbers.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL: vectors of 16 numbers.
    Avx512,
    /// x86-64 with AVX-512, its instructions for `bf16` and bytes, and the tile unit (AMX): products of `bf16` go to the
    /// unit, everything else is as for [`Isa::Avx512`].
    Amx,
}

/// The name that asks for [`Isa::Amx`] where the machine has no tile unit, see [`amx::emulate()`].
pub const AMX_EMULATED: &str = "amx-emulated";

/// Why [`Isa::from_env`] could not follow the environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    asked: String,
    /// What is in the way of it, where that can be said.
    reason: Option<String>,
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
        write!(f, "{ISA_VARIABLE}={:?} is not available here", self.asked)?;
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        write!(f, " (available: {})", names.join(", "))
    }
}

impl std::error::Error for IsaError {}

impl Isa {
    /// Every instruction set kernels exist for, from the narrowest to the widest.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Amx];

    /// The name used by the environment variable and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    /// How many `f32` one vector register holds.
    pub fn lanes(self) -> usize {
        match self {
            Isa::Portable | Isa::Avx2 => 8,
            Isa::Avx512 | Isa::Amx => 16,
        }
    }

    /// The instruction set of the vectors that its kernels use beside the tile unit; itself, but for [`Isa::Amx`].
    pub fn vectors(self) -> Isa {
        if self == Isa::Amx { Isa::Avx512 } else { self }
    }

    /// Whether this machine can run kernels of this instruction set.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => {
                Isa::Avx512.has_bf16() && is_x86_feature_detected!("avx512vnni") && amx::is_available()
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::Amx => false,
        }
    }

    /// Whether this machine multiplies pairs of `bf16` with this instruction set: AVX512-BF16, or the tile unit beside it.
    ///
    /// Kernels on `bf16` run without it as well, but slower than those on `f32`.
    pub fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.vectors() == Isa::Avx512 {
            return self.is_available() && is_x86_feature_detected!("avx512bf16");
        }
        false
    }

    /// Whether this machine multiplies fours of bytes with this instruction set: AVX512-VNNI, AVX-VNNI, or the tile unit.
    ///
    /// Kernels on `u8` run without it as well, about as fast as those on `f32`.
    pub fn has_vnni(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => self.is_available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => self.is_available() && is_x86_feature_detected!("avxvnni"),
            _ => false,
        }
    }

    /// Whether this machine converts `f16` with this instruction set as it loads and stores: F16C, or AVX-512. Kernels on
    /// `f16` run without it as well, but far slower than those on `f32`.
    pub fn has_f16(self) -> bool {
        self != Isa::Portable && self.is_available()
    }

    /// The instruction set whose kernels take this element where this one is asked for: there are none on `bf16` or bytes
    /// with AVX-512 that lacks the instructions for them, nor on `bf16` with AVX2. The planner has no use for them, and
    /// every one would be compiled in vain.
    pub fn serving(self, element: ElementType) -> Isa {
        match element {
            ElementType::Bf16 if !self.has_bf16() => Isa::Portable,
            ElementType::U8 if self.vectors() == Isa::Avx512 && !self.has_vnni() => Isa::Avx2,
            _ => self,
        }
    }

    /// Whether the instructions are there, and not only computed one by one by [`amx::emulate()`].
    fn is_real(self) -> bool {
        self.is_available() && (self != Isa::Amx || amx::is_real())
    }

    /// The instruction sets of this machine, from the narrowest to the widest; never empty, and nothing emulated.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_real()).collect()
    }

    /// Those of them that have kernels on this element of their own: [`Isa::Amx`] shares all on `f32` and `f16` with
    /// [`Isa::Avx512`].
    pub fn available_for(element: ElementType) -> Vec<Isa> {
        let own = |isa: &Isa| {
            (!matches!(element, ElementType::F32 | ElementType::F16) || *isa == isa.vectors())
                && isa.serving(element) == *isa
        };
        Isa::available().into_iter().filter(own).collect()
    }

    /// The widest instruction set of this machine; the environment is not asked.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_real()).unwrap_or(Isa::Portable)
    }

    /// The instruction set the environment asks for, or the widest one where it asks for none.
    ///
    /// A name that is unknown or that this machine lacks is an error which lists what is available.
    pub fn from_env() -> Result<Isa, IsaError> {
        match std::env::var_os(ISA_VARIABLE) {
            None => Ok(Isa::detect()),
            Some(asked) if asked.is_empty() => Ok(Isa::detect()),
            Some(asked) => Isa::from_name(&asked.to_string_lossy()),
        }
    }

    /// The available instruction set of this name. [`AMX_EMULATED`] makes [`Isa::Amx`] available to this process.
    pub fn from_name(name: &str) -> Result<Isa, IsaError> {
        if name == AMX_EMULATED {
            let refused = |reason| IsaError { asked: name.to_owned(), reason: Some(reason) };
            return amx::emulate().map(|()| Isa::Amx).map_err(refused);
        }
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name && isa.is_real())
            .ok_or_else(|| IsaError { asked: name.to_owned(), reason: None })
    }

    /// The instruction set of this process, decided once.
    ///
    /// Where the environment asks for something impossible this is the widest one; a program that wants to
    /// refuse instead calls [`Isa::from_env`] first.
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| Isa::from_env().unwrap_or_else(|_| Isa::detect()))
    }
}

/// The name, and whether the instructions are emulated here.
impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if *self == Isa::Amx && amx::is_emulated() { f.write_str(", emulated") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_is_always_there_and_detect_is_the_widest() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Portable));
        assert_eq!(available.last(), Some(&Isa::detect()));
    }

    #[test]
    fn what_is_emulated_is_not_chosen() {
        let before = (Isa::available(), Isa::detect());
        match Isa::from_name(AMX_EMULATED) {
            Ok(isa) => assert!(isa == Isa::Amx && isa.is_available() && isa.has_bf16()),
            Err(error) => assert!(error.to_string().contains(AMX_EMULATED), "{error}"),
        }
        assert_eq!((Isa::available(), Isa::detect()), before);
        assert_eq!(Isa::from_name("amx").is_ok(), amx::is_real());
        assert!(!Isa::available_for(ElementType::F32).contains(&Isa::Amx));
    }

    #[test]
    fn an_unknown_name_lists_what_is_available() {
        let error = Isa::from_name("mmx").unwrap_err().to_string();
        assert!(error.contains("mmx") && error.contains("portable"), "{error}");
    }
}
