use planish_cpu::conv::*;
use planish_cpu::epilogue::*;
use planish_cpu::isa::Isa;
use planish_cpu::threads::ThreadPool;
use planish_cpu::view::*;
use std::sync::Arc;
use std::time::Instant;
fn stage(c: usize, k: usize, hw: usize, kern: usize, st: usize, g: usize, algo: &str) -> ChainStage {
    let mut p = ConvProblem::new_2d(1, c, k, [hw, hw], [kern, kern]);
    p.stride = [1, st, st];
    p.groups = g;
    p.pads_begin = [0, kern / 2, kern / 2];
    p.pads_end = p.pads_begin;
    let w: Vec<f32> = (0..p.weights_len()).map(|i| ((i * 7919) % 1013) as f32 / 5070.0 - 0.1).collect();
    let b = vec![0.1f32; k];
    let a = algorithms().iter().find(|a| a.name() == algo).unwrap();
    let prepared: Arc<dyn PreparedConv> = a.prepare(&p, Isa::current(), &w, Some(&b)).unwrap().into();
    ChainStage { problem: p, prepared, activation: Activation::Clip { min: 0.0, max: 6.0 } }
}
fn main() {
    let pool = ThreadPool::new(1);
    let _a = pool.activate();
    let sets: Vec<(&str, Vec<ChainStage>)> = vec![
        (
            "f2 pw,dw,pw",
            vec![
                stage(16, 96, 112, 1, 1, 1, "pointwise"),
                stage(96, 96, 112, 3, 2, 96, "depthwise"),
                stage(96, 24, 56, 1, 1, 1, "pointwise"),
            ],
        ),
        (
            "f2 pw,dw",
            vec![stage(16, 96, 112, 1, 1, 1, "pointwise"), stage(96, 96, 112, 3, 2, 96, "depthwise")],
        ),
        (
            "f0-2",
            vec![
                stage(4, 32, 224, 3, 2, 1, "direct"),
                stage(32, 32, 112, 3, 1, 32, "depthwise"),
                stage(32, 16, 112, 1, 1, 1, "pointwise"),
                stage(16, 96, 112, 1, 1, 1, "pointwise"),
                stage(96, 96, 112, 3, 2, 96, "depthwise"),
                stage(96, 24, 56, 1, 1, 1, "pointwise"),
            ],
        ),
        (
            "f3 pw,dw,pw",
            vec![
                stage(24, 144, 56, 1, 1, 1, "pointwise"),
                stage(144, 144, 56, 3, 1, 144, "depthwise"),
                stage(144, 24, 56, 1, 1, 1, "pointwise"),
            ],
        ),
        (
            "f4 pw,dw",
            vec![stage(24, 144, 56, 1, 1, 1, "pointwise"), stage(144, 144, 56, 3, 2, 144, "depthwise")],
        ),
        (
            "f5 pw,dw,pw",
            vec![
                stage(32, 192, 28, 1, 1, 1, "pointwise"),
                stage(192, 192, 28, 3, 1, 192, "depthwise"),
                stage(192, 32, 28, 1, 1, 1, "pointwise"),
            ],
        ),
    ];
    let junk = vec![1f32; 6_000_000];
    for (name, stages) in sets {
        let first = stages[0].problem.clone();
        let x: Vec<f32> =
            (0..first.in_rows() * first.in_channels).map(|i| ((i * 31) % 997) as f32 / 498.0 - 1.0).collect();
        let mut bufs: Vec<Vec<f32>> =
            stages.iter().map(|s| vec![0f32; s.problem.out_rows() * s.problem.out_channels]).collect();
        let chain = Chain::new(stages.clone()).unwrap();
        let mut ws = vec![0f32; chain.workspace_len(1)];
        let last = stages.last().unwrap().problem.clone();
        let mut out = vec![0f32; last.out_rows() * last.out_channels];
        let (mut b1, mut b2) = (vec![], vec![]);
        let mut each = vec![f64::MAX; stages.len()];
        let mut s = 0f32;
        let t = Instant::now();
        while t.elapsed().as_secs_f64() < 1.0 {
            s += junk.iter().sum::<f32>();
            let t0 = Instant::now();
            for i in 0..stages.len() {
                let (a, b) = bufs.split_at_mut(i);
                let p = &stages[i].problem;
                let inp: &[f32] = if i == 0 { &x } else { &a[i - 1] };
                let mut w = vec![0f32; stages[i].prepared.workspace_len(p, 1)];
                let t1 = Instant::now();
                stages[i]
                    .prepared
                    .run(
                        p,
                        &pool,
                        ConvCall {
                            input: Rows::dense(inp, p.in_rows(), p.in_channels).unwrap(),
                            epilogue: Epilogue { activation: stages[i].activation, ..Default::default() },
                            output: RowsMut::dense(&mut b[0], p.out_rows(), p.out_channels).unwrap(),
                            workspace: &mut w,
                        },
                    )
                    .unwrap();
                each[i] = each[i].min(t1.elapsed().as_secs_f64());
            }
            b1.push(t0.elapsed().as_secs_f64());
            s += junk.iter().sum::<f32>();
            let t0 = Instant::now();
            chain
                .run(
                    &pool,
                    Rows::dense(&x, first.in_rows(), first.in_channels).unwrap(),
                    None,
                    RowsMut::dense(&mut out, last.out_rows(), last.out_channels).unwrap(),
                    &mut ws,
                )
                .unwrap();
            b2.push(t0.elapsed().as_secs_f64());
        }
        b1.sort_by(f64::total_cmp);
        b2.sort_by(f64::total_cmp);
        println!(
            "{name:14} apart {:.1} min {:.1} | chain {:.1} min {:.1} | each {:?} {}",
            b1[b1.len() / 2] * 1e6,
            b1[0] * 1e6,
            b2[b2.len() / 2] * 1e6,
            b2[0] * 1e6,
            each.iter().map(|x| (x * 1e6).round()).collect::<Vec<_>>(),
            s == 0.0
        );
    }
}
