use planish_cpu::conv::*;
use planish_cpu::epilogue::Activation;
use planish_cpu::isa::Isa;
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::*;
use std::time::Instant;
fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let algos: Vec<&str> = names[0].split(',').collect();
    let pool = ThreadPool::new(1);
    let _a = pool.activate();
    for spec in &names[1..] {
        let v: Vec<usize> = spec.split('x').map(|x| x.parse().unwrap()).collect();
        let (c, hw, k, kern, st) = (v[0], v[1], v[2], v[3], v[4]);
        let g = v.get(5).copied().unwrap_or(1);
        let mut p = ConvProblem::new_2d(1, c, k, [hw, hw], [kern, kern]);
        p.stride = [1, st, st];
        p.groups = g;
        p.pads_begin = [0, kern / 2, kern / 2];
        p.pads_end = p.pads_begin;
        let w: Vec<f32> = (0..p.weights_len()).map(|i| ((i * 7919) % 1013) as f32 / 507.0 - 1.0).collect();
        let x: Vec<f32> = (0..p.in_rows() * c).map(|i| ((i * 31) % 997) as f32 / 498.0 - 1.0).collect();
        let mut y = vec![0f32; p.out_rows() * k];
        let bias = vec![0.1f32; k];
        let mut preps = vec![];
        for a in algorithms() {
            if algos.contains(&a.name().replace(' ', "").as_str()) && a.accepts(&p, Isa::current()).is_ok() {
                preps.push((a.name(), a.prepare(&p, Isa::current(), &w, Some(&bias)).unwrap()));
            }
        }
        let mut best = vec![f64::MAX; preps.len()];
        let t = Instant::now();
        while t.elapsed().as_secs_f64() < 0.5 {
            for (i, (_, pr)) in preps.iter().enumerate() {
                let mut ws = vec![0f32; pr.workspace_len(&p, 1)];
                for _ in 0..3 {
                    let t0 = Instant::now();
                    pr.run(
                        &p,
                        &pool,
                        ConvCall {
                            input: Rows::dense(&x, p.in_rows(), c).unwrap(),
                            epilogue: planish_cpu::epilogue::Epilogue {
                                activation: Activation::Relu,
                                ..Default::default()
                            },
                            output: RowsMut::dense(&mut y, p.out_rows(), k).unwrap(),
                            workspace: &mut ws,
                        },
                    )
                    .unwrap();
                    best[i] = best[i].min(t0.elapsed().as_secs_f64());
                }
            }
        }
        print!("{spec:24}");
        let rates = planish_cpu::rates::Rates::defaults(Isa::current());
        for (i, (n, _)) in preps.iter().enumerate() {
            print!(
                " {n} {:.1}us {:.1}GF est {:.1} |",
                best[i] * 1e6,
                2.0 * p.macs() as f64 / best[i] / 1e9,
                rates.milliseconds(&algorithms().iter().find(|a| a.name() == *n).unwrap().work(
                    &p,
                    Isa::current(),
                    1
                )) * 1e3
            );
        }
        println!();
    }
}
