//! What the machine takes for each kind of work: the constants of the cost model, all of them.
//!
//! An algorithm counts what it does ([`Work`]: so many multiply-adds, so many bytes from beyond the second-level cache,
//! so many addresses), a machine has a [`Rate`] for each kind, and the estimate is the sum of their products
//! ([`Rates::milliseconds`]). That the estimate is linear in the rates is the point: they can be fitted to measurements
//! by least squares (`planish tune --fit`), on any machine, without touching an algorithm. What is not linear, such as
//! fetching that hides behind arithmetic, is counted by the algorithms as work of another kind ([`Rate::WaitedByte`]).
//!
//! The defaults of each instruction set were fitted on one core and on two of a Zen 4 of 3.67 GHz.

use crate::isa::Isa;
use std::ops::AddAssign;

/// The bytes that stay in a core's second-level cache while others pass through: half of the 1 MiB that most have today.
pub const SECOND_LEVEL: f64 = 512.0 * 1024.0;

/// Bytes beyond which data come from memory whenever they are read, rather than from the last cache.
pub const LAST_LEVEL: f64 = 8e6;

macro_rules! rates {
    ($($rate:ident $name:literal $meaning:literal [$portable:literal $avx2:literal $avx512:literal])*) => {
        /// A kind of work. Its rate is the nanoseconds that one unit takes a core.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rate {
            $(#[doc = concat!($meaning, ".")] $rate,)*
        }

        impl Rate {
            /// Every kind.
            pub const ALL: &[Rate] = &[$(Rate::$rate),*];

            /// The name in files and reports.
            pub fn name(self) -> &'static str {
                match self { $(Rate::$rate => $name),* }
            }

            /// What one unit is.
            pub fn meaning(self) -> &'static str {
                match self { $(Rate::$rate => $meaning),* }
            }
        }

        impl Rates {
            /// The rates of an instruction set where nothing was fitted.
            pub fn defaults(isa: Isa) -> Rates {
                Rates(match isa {
                    Isa::Portable => [$($portable),*],
                    Isa::Avx2 => [$($avx2),*],
                    Isa::Avx512 => [$($avx512),*],
                })
            }
        }
    };
}

rates! {
    MultiplyAdd "multiply-add" "A multiply-add of vectors in a product" [0.4374 0.0834 0.2784]
    PanelStep "panel step" "A row of a panel of weights that meets a tile of rows" [0.0 0.6773 0.0662]
    ResultVector "result vector" "A vector of a product's result, stored and finished" [5.379 3.217 2.4973]
    CollidingMultiplyAdd "colliding multiply-add" "What a multiply-add takes longer where rows meet in few sets of the \
        first-level cache" [0.0 0.0 0.0099]
    WeightsByte "weights byte" "A byte of weights from beyond the second-level cache" [0.0107 0.0088 0.0058]
    WaitedByte "waited byte" "A byte of weights that the arithmetic is too short to hide" [0.0 0.0017 0.0094]
    MemoryByte "memory byte" "What a byte takes longer from memory than from the last cache" [0.0143 0.0225 0.0289]
    ActivationByte "activation byte" "A byte of input or output beyond the second-level cache" [0.0103 0.0049 0.0047]
    Address "address" "An address of a tap, made" [1.5023 1.7429 1.4221]
    AddressLoad "address load" "An address of a tap, loaded for a panel" [0.0541 0.0 0.0]
    PaddedByte "padded byte" "A byte copied into a padded image" [0.0255 0.0334 0.0299]
    CopiedRun "copied run" "A run of a patch that is copied" [5.7888 6.3745 7.4157]
    CopiedByte "copied byte" "A byte of a patch that is copied" [0.0215 0.0198 0.0182]
    StrassenSum "strassen sum" "A vector of each quarter of a product whose sums wait for each other" [20.0 10.0 10.0]
    StrassenVector "strassen vector" "A vector of a quarter's row that is summed with the others" [11.0 5.5 5.5]
    DepthwiseTap "depthwise tap" "A tap of a vector of channels where neighbouring pixels share loads" [1.6 0.1727 0.387]
    DepthwiseLoneTap "depthwise lone tap" "A tap of a vector of channels that is loaded by itself" [0.7342 0.3734 0.6413]
    DepthwiseVector "depthwise vector" "A vector of a depthwise result, stored and finished" [2.1837 1.3301 1.2398]
    DepthwisePixel "depthwise pixel" "A pixel of a depthwise result, found" [2.8152 5.396 1.8818]
    GroupedStep "grouped step" "A multiply-add with its permutation" [4.2446 0.2155 0.3846]
    GroupedTap "grouped tap" "A tap of a vector of output channels" [0.8438 0.3489 0.495]
    GroupedVector "grouped vector" "A vector of a grouped result, stored and finished" [5.1186 1.9483 1.7506]
    GroupedPixel "grouped pixel" "A pixel of a grouped result, found" [9.7969 3.4004 1.3268]
    WinogradInput "winograd input" "A vector of a point of a transformed input tile" [2.3008 1.3547 2.4413]
    WinogradOutput "winograd output" "A vector of a point of a product, transformed back" [8.2774 3.6621 4.3475]
    WinogradSum "winograd sum" "A vector of a sum that is cut off and added to those before" [3.5689 2.6027 2.5797]
    FourierStage "fourier stage" "A vector of a tile's number in one stage of its transform" [1.8978 0.8774 1.2133]
    FourierProduct "fourier product" "A vector of a product of spectra, stored" [0.0 0.1999 0.0]
    MovedByte "moved byte" "A byte whose layout is changed" [0.0774 0.0278 0.0278]
    Call "call" "A call of a kernel" [312.7 415.7 350.8]
    Region "region" "A region of a run that several threads work on" [801.3 704.8 625.5]
}

/// How much of each kind of work a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work([f64; Rate::ALL.len()]);

impl Default for Work {
    fn default() -> Self {
        Work([0.0; Rate::ALL.len()])
    }
}

impl Work {
    /// Work of these kinds.
    pub fn of(parts: &[(Rate, f64)]) -> Work {
        let mut work = Work::default();
        for &(rate, count) in parts {
            work.0[rate as usize] += count;
        }
        work
    }

    /// How much of one kind.
    pub fn count(&self, rate: Rate) -> f64 {
        self.0[rate as usize]
    }

    /// What each thread has of it where `busy` threads share it evenly.
    pub fn shared(self, busy: f64) -> Work {
        self.times(1.0 / busy.max(1.0))
    }

    /// So many times this.
    pub fn times(mut self, factor: f64) -> Work {
        self.0.iter_mut().for_each(|count| *count *= factor);
        self
    }

    /// This and a call of a kernel with so many parallel regions, which cost nothing on one thread.
    pub fn called(mut self, regions: usize, threads: usize) -> Work {
        let regions = if threads > 1 { regions as f64 } else { 0.0 };
        self += Work::of(&[(Rate::Call, 1.0), (Rate::Region, regions)]);
        self
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// The bytes of weights that are read `passes` times by one thread while it does these multiply-adds of vectors: those
/// from beyond the second-level cache, those from memory, and those that the arithmetic cannot hide.
///
/// A network's other layers pass between two runs, so the first time weights are never in the second-level cache.
pub fn weights_read(bytes: f64, passes: f64, multiply_adds: f64, isa: Isa) -> Work {
    let again = if bytes > SECOND_LEVEL { bytes * (passes - 1.0).max(0.0) } else { 0.0 };
    let read = bytes + again;
    // A multiply-add of 16 numbers hides about 8 bytes on any machine of today.
    let hidden = multiply_adds * isa.lanes() as f64 * 0.5;
    let memory = if bytes > LAST_LEVEL { read } else { 0.0 };
    Work::of(&[
        (Rate::WeightsByte, read),
        (Rate::WaitedByte, (read - hidden).max(0.0)),
        (Rate::MemoryByte, memory),
    ])
}

/// A machine's nanoseconds for a unit of each kind of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates([f64; Rate::ALL.len()]);

impl Rates {
    /// The nanoseconds of one unit.
    pub fn get(&self, rate: Rate) -> f64 {
        self.0[rate as usize]
    }

    /// Sets the nanoseconds of one unit: finite and not negative, else it stays as it is.
    pub fn set(&mut self, rate: Rate, nanoseconds: f64) {
        if nanoseconds.is_finite() && nanoseconds >= 0.0 {
            self.0[rate as usize] = nanoseconds;
        }
    }

    /// The estimated time of some work.
    pub fn milliseconds(&self, work: &Work) -> f64 {
        self.0.iter().zip(work.0).map(|(rate, count)| rate * count).sum::<f64>() * 1e-6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_sums_of_products() {
        let mut rates = Rates::defaults(Isa::Portable);
        rates.set(Rate::MultiplyAdd, 2.0);
        rates.set(Rate::Call, 1000.0);
        rates.set(Rate::Address, f64::NAN);
        assert_eq!(rates.get(Rate::Address), Rates::defaults(Isa::Portable).get(Rate::Address));
        let work = Work::of(&[(Rate::MultiplyAdd, 1e6)]).shared(2.0).called(3, 1);
        assert_eq!(rates.milliseconds(&work), 1.0 + 1e-3);
        assert_eq!(work.count(Rate::Region), 0.0);
        assert_eq!(work.called(3, 2).count(Rate::Region), 3.0);
    }

    #[test]
    fn names_differ() {
        for (i, rate) in Rate::ALL.iter().enumerate() {
            assert_eq!(*rate as usize, i);
            assert!(Rate::ALL[..i].iter().all(|other| other.name() != rate.name()), "{}", rate.name());
            assert!(!rate.meaning().contains("  "), "{}", rate.meaning());
        }
    }

    #[test]
    fn long_arithmetic_hides_weights() {
        let short = weights_read(1e6, 2.0, 0.0, Isa::Avx512);
        assert_eq!([short.count(Rate::WeightsByte), short.count(Rate::WaitedByte)], [2e6, 2e6]);
        let long = weights_read(1e5, 2.0, 1e6, Isa::Avx512);
        assert_eq!([long.count(Rate::WeightsByte), long.count(Rate::WaitedByte)], [1e5, 0.0]);
        assert_eq!(weights_read(1e7, 1.0, 0.0, Isa::Avx2).count(Rate::MemoryByte), 1e7);
    }
}
