//! Measures.
use planish_cpu::epilogue::Activation;
use planish_cpu::isa::Isa;
use planish_cpu::matmul::{PackedMatrix, matmul};
use planish_cpu::simd::{Simd, SimdOp, dispatch};
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::{Rows, RowsMut};
use std::time::Instant;

struct Peak(usize);
impl SimdOp for Peak {
    type Output = (f32, usize);
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> (f32, usize) {
        let mut a = [s.splat(1.0); 12];
        let x = s.splat(0.5);
        let y = s.splat(std::hint::black_box(0.25));
        for _ in 0..self.0 {
            for v in &mut a {
                *v = s.mul_add(*v, x, y);
            }
        }
        let mut sum = s.zero();
        for v in a {
            sum = s.add(sum, v);
        }
        (s.reduce_add(sum), self.0 * 12 * S::LANES * 2)
    }
}

fn time(mut f: impl FnMut()) -> f64 {
    f();
    let mut best = f64::INFINITY;
    let start = Instant::now();
    let mut n = 0;
    while n < 5 || start.elapsed().as_secs_f64() < 0.25 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
        n += 1;
    }
    best
}

fn main() {
    let isa = Isa::current();
    let mut flops = 0;
    let t = time(|| flops = std::hint::black_box(dispatch(isa, Peak(200_000))).1);
    let peak = flops as f64 / t / 1e9;
    println!("{isa} peak {peak:.1} GFLOP/s");
    let pool = ThreadPool::new(1);
    for (m, k, n) in [
        (784, 512, 128),
        (3136, 64, 64),
        (3136, 64, 256),
        (3136, 576, 64),
        (196, 2304, 256),
        (196, 1024, 256),
        (196, 256, 1024),
        (49, 4608, 512),
        (49, 512, 2048),
        (49, 2048, 512),
        (1, 2048, 1000),
        (12544, 32, 16),
        (12544, 16, 96),
        (3136, 144, 24),
    ] {
        let fill = |n: usize| (0..n).map(|i| (i * 7 % 13) as f32 * 0.1).collect::<Vec<_>>();
        let a = fill(m * k);
        let w = fill(k * n);
        let b = PackedMatrix::from_strided(isa, &w, k, n, n, 1).unwrap();
        let mut out = vec![0.0; m * n];
        let t = time(|| {
            matmul(
                &pool,
                Rows::dense(&a, m, k).unwrap(),
                &b,
                None,
                None,
                Activation::Relu,
                RowsMut::dense(&mut out, m, n).unwrap(),
            )
            .unwrap();
        });
        let g = 2.0 * (m * k * n) as f64 / t / 1e9;
        println!("{m:6} {k:5} {n:5} {:9.1} us {g:7.1} GFLOP/s {:5.1} %", t * 1e6, 100.0 * g / peak);
    }
}
