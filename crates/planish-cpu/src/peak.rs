//! The fastest that this machine can multiply and add, because a rate means little without its limit.
//!
//! Data sheets do not help: clocks change with load and with the width of the vectors, a virtual processor may be half
//! of a core. So the limit is measured, by multiply-adds that wait for nothing, on as many threads as the kernels use.

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::amx::{TILE_ROWS, TILE_WORDS};
#[cfg(target_arch = "x86_64")]
use crate::amx::{
    TileProduct,
    instructions::{Shapes, Tiles},
};
use crate::element::Factor;
use crate::isa::Isa;
use crate::simd::{Simd, SimdOp};
use crate::threads::ThreadPool;

/// Sums that do not depend on each other: more than units times latency of any processor, few enough for 16 registers
/// together with the two operands. A vector of the portable path takes two registers.
const fn sums(isa: Isa) -> usize {
    match isa {
        Isa::Portable => 6,
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => 12,
    }
}

/// Multiply-adds of each sum in one task: some 50 µs, far above the cost of a region.
const STEPS: usize = 20_000;
/// Products of each of four tiles of sums in one task on the tile unit: as long.
const TILE_STEPS: usize = 1_500;
/// How long regions are repeated; the fastest counts, what is slower was disturbed. Several time slices of the operating
/// system, so that all threads get their cores at once even where other programs want them.
const REPEAT_FOR: Duration = Duration::from_millis(50);

/// Lanes of the widest vectors.
const MOST_LANES: usize = 16;

struct MultiplyAdds<T>(PhantomData<T>);

impl<T: Factor> MultiplyAdds<T> {
    #[inline(always)]
    fn run<S: Simd, const SUMS: usize>(s: S) {
        let mut sums = [s.splat(1.0); SUMS];
        let (half, quarter) = (s.splat(black_box(0.5)), s.splat(black_box(0.25)));
        for _ in 0..STEPS {
            for sum in &mut sums {
                // The product changes with the sum, so that without fusing it is not computed once for all steps.
                *sum = T::multiply_add(s, *sum, half, quarter);
            }
        }
        // Stores keep the lanes of a sum together: from a sum over lanes the compiler makes vectors of two on the
        // portable path.
        for sum in sums {
            let mut lanes = [0f32; MOST_LANES];
            // SAFETY: no vector has more lanes than the array has numbers.
            unsafe { s.store(lanes.as_mut_ptr(), sum) };
            black_box(&lanes);
        }
    }
}

impl<T: Factor> SimdOp for MultiplyAdds<T> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        match S::ISA {
            Isa::Portable => Self::run::<S, { sums(Isa::Portable) }>(s),
            Isa::Avx2 | Isa::Avx512 | Isa::Amx => Self::run::<S, { sums(Isa::Avx2) }>(s),
        }
    }
}

/// Products of tiles that are loaded already, or what that would be.
///
/// # Safety
/// The tile unit is available.
#[cfg(target_arch = "x86_64")]
unsafe fn multiply_tiles(product: TileProduct) {
    // SAFETY: promised by the caller; all tiles have the same, full shape.
    unsafe {
        let unit = Tiles::configure(&Shapes::new([(TILE_ROWS, TILE_WORDS); 8]));
        for _ in 0..TILE_STEPS {
            unit.multiply::<0, 4, 6>(product);
            unit.multiply::<1, 4, 7>(product);
            unit.multiply::<2, 5, 6>(product);
            unit.multiply::<3, 5, 7>(product);
        }
    }
}

/// Multiplies and adds in one task on the tile unit.
const fn tile_operations(per_word: usize) -> usize {
    4 * TILE_STEPS * TILE_ROWS * TILE_WORDS * TILE_WORDS * per_word
}

/// Operations a second, of floating-point numbers or of integers, that independent multiply-adds of `T` reach (each counts two) on all threads of
/// `pool` together, on the tile unit where `isa` multiplies `T` there. Takes a twentieth of a second.
pub fn peak_flops<T: Factor>(isa: Isa, pool: &ThreadPool) -> f64 {
    let threads = pool.threads();
    let tiles = T::TILES.filter(|_| isa == Isa::Amx && isa.is_available());
    let vectors = STEPS * sums(isa) * isa.lanes() * T::PER_WORD;
    let task = if tiles.is_some() { tile_operations(T::PER_WORD) } else { vectors };
    let operations = (threads * task * 2) as f64;
    let work = || match tiles {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: just asked for.
        Some(product) => unsafe { multiply_tiles(product) },
        _ => T::dispatch_products(isa, MultiplyAdds::<T>(PhantomData)),
    };
    let _active = pool.activate();
    let mut least = f64::INFINITY;
    let begun = Instant::now();
    while least.is_infinite() || begun.elapsed() < REPEAT_FOR {
        let start = Instant::now();
        pool.run(threads, &|_| work());
        least = least.min(start.elapsed().as_secs_f64());
    }
    operations / least
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::ElementType;

    #[test]
    fn the_peak_is_that_of_a_processor() {
        for isa in Isa::available() {
            let one = peak_flops::<f32>(isa, &ThreadPool::new(1));
            // Between a slow machine in an unoptimised build and 8 GHz with two units for vectors of 16.
            assert!(one > 2e7 && one < 8e9 * 64.0, "{isa}: {one}");
            // Two threads may share a core, or one of them may have to wait for another program.
            let two = peak_flops::<f32>(isa, &ThreadPool::new(2));
            assert!(two > 0.2 * one && two < 2.0 * 8e9 * 64.0, "{isa}: {two} on two threads, {one} on one");
            // Four products of bytes take the place of one of numbers, or are widened and cost as much.
            let bytes = peak_flops::<u8>(isa.serving(ElementType::U8), &ThreadPool::new(1));
            assert!(bytes > 2e7 && bytes < 64.0 * 8e9 * 64.0, "{isa}: {bytes} on bytes");
        }
    }

    #[test]
    fn the_tile_unit_has_a_peak_of_its_own() {
        match crate::amx::emulate() {
            Ok(()) => assert!(peak_flops::<crate::element::bf16>(Isa::Amx, &ThreadPool::new(1)) > 1e6),
            Err(reason) => eprintln!("skipped: {reason}"),
        }
    }
}
