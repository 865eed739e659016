//! Attributes and operands that an operator is likely to take, given the values there are.

use crate::attributes::general_attributes;
use crate::generate::{Builder, plain};
use crate::source::Source;
use planish_graph::{Attributes, DType, Fact, Tensor, ValueId};

/// What a node is to be made of.
pub(crate) struct Wanted {
    pub(crate) attributes: Attributes,
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) outputs: usize,
}

fn floats(rank: impl Fn(usize) -> bool) -> impl Fn(&Fact) -> bool {
    move |f| f.dtype == DType::F32 && f.shape().is_some_and(|s| rank(s.len()))
}

/// Attributes and operands for an operator of that name; `None` where nothing fits.
pub(crate) fn choose(b: &mut Builder, source: &mut Source<'_>, name: &str) -> Option<Wanted> {
    let mut wanted = match name {
        "Conv" | "ConvAdd" | "ConvTranspose" => convolution(b, source, name)?,
        "MaxPool" | "AveragePool" | "LpPool" => pooling(b, source)?,
        "Gemm" | "MatMul" => product(b, source, name)?,
        "BatchNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "LayerNormalization"
        | "RMSNormalization" => normalization(b, source, name)?,
        "Concat" | "Split" | "Slice" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Expand"
        | "Tile" | "Pad" | "Resize" | "Gather" => movement(b, source, name)?,
        "Add" | "Sub" | "Mul" | "Div" | "PRelu" | "Pow" | "Max" | "Min" | "Sum" | "Mean" | "Mod"
        | "Greater" | "Less" | "Equal" => broadcast(b, source, name)?,
        _ => other(b, source, name),
    };
    general_attributes(source, name, &mut wanted.attributes);
    Some(wanted)
}

fn spatial(b: &Builder, source: &mut Source<'_>) -> Option<(ValueId, Vec<usize>)> {
    let x = b.some(source, floats(|r| (3..=5).contains(&r)));
    let shape = b.fact(x).shape()?.to_vec();
    (shape.len() >= 3 && shape.len() <= 5).then_some((x, shape))
}

/// Strides, dilations and pads of a window.
fn window(source: &mut Source<'_>, axes: usize, attributes: Attributes) -> Attributes {
    let mut found = attributes;
    if source.once_in(2) {
        found = found.with("strides", source.list(axes, &[1, 2, 3, 1, 2, 4]));
    }
    if source.once_in(3) {
        found = found.with("dilations", source.list(axes, &[1, 2, 1, 3]));
    }
    match source.below(8) {
        0..4 => found.with("pads", source.list(2 * axes, &[1, 0, 1, 2, 0, 3])),
        4 => found.with("auto_pad", source.pick(&["SAME_UPPER", "SAME_LOWER", "VALID"])),
        _ => found,
    }
}

fn convolution(b: &mut Builder, source: &mut Source<'_>, name: &str) -> Option<Wanted> {
    let (x, shape) = spatial(b, source)?;
    let (channels, axes) = (shape[1], shape.len() - 2);
    let group = match source.below(4) {
        0 => channels.max(1),
        1 => source.pick(&[2, 3, 4]),
        _ => 1,
    };
    if channels % group != 0 {
        return None;
    }
    let kernel: Vec<usize> = match source.below(4) {
        0 => vec![1; axes],
        1 => vec![3; axes],
        _ => (0..axes).map(|_| source.pick(&[1, 2, 3, 3, 5, 7])).collect(),
    };
    let each = source.pick(&[1, 2, 3, 4, 8, 16, 17]);
    let made = group * each;
    let front = match name {
        "ConvTranspose" => [channels, each],
        _ => [made, channels / group],
    };
    let weights = [&front[..], &kernel].concat();
    let mut inputs = vec![Some(x), Some(b.weights(source, DType::F32, &weights)?)];
    if source.below(3) > 0 || name == "ConvAdd" {
        inputs.push(Some(b.weights(source, DType::F32, &[made])?));
    }
    let mut attributes = window(source, axes, Attributes::new()).with("group", group as i64);
    if name == "ConvTranspose" && source.once_in(3) {
        attributes = attributes.with("output_padding", source.list(axes, &[0, 1, 2]));
    }
    if name == "ConvAdd" {
        attributes = attributes.with("pads", vec![kernel[0] as i64 / 2; 2 * axes]);
        let residual = [&[shape[0], made][..], &shape[2..]].concat();
        let like = b.some(source, |f| f.dtype == DType::F32 && f.shape() == Some(&residual));
        let fits = b.fact(like).shape() == Some(&residual);
        inputs.push(Some(if fits { like } else { b.weights(source, DType::F32, &residual)? }));
        attributes =
            attributes.with("activation", source.pick(&["Relu", "None", "HardSwish", "Silu", "Sigmoid"]));
    }
    Some(Wanted { attributes, inputs, outputs: 1 })
}

fn pooling(b: &mut Builder, source: &mut Source<'_>) -> Option<Wanted> {
    let (x, shape) = spatial(b, source)?;
    let axes = shape.len() - 2;
    let kernel = source.list(axes, &[2, 3, 1, 5, 2]);
    let attributes = window(source, axes, Attributes::new().with("kernel_shape", kernel));
    let attributes = attributes.with("ceil_mode", source.pick(&[0i64, 1]));
    let outputs = if source.once_in(8) { 2 } else { 1 };
    Some(Wanted { attributes, inputs: vec![Some(x)], outputs })
}

fn product(b: &mut Builder, source: &mut Source<'_>, name: &str) -> Option<Wanted> {
    let gemm = name == "Gemm";
    let x = b.some(source, floats(|r| if gemm { r == 2 } else { r > 0 }));
    let shape = b.fact(x).shape()?.to_vec();
    let (trans_a, trans_b) = (gemm && source.once_in(4), gemm && source.once_in(2));
    let k = if trans_a { *shape.first()? } else { *shape.last()? };
    let n = source.pick(&[1, 2, 3, 8, 17, 0, 33]);
    let mut weights = if trans_b { vec![n, k] } else { vec![k, n] };
    if !gemm {
        match source.below(6) {
            0 => weights = vec![k],
            1 if shape.len() > 2 => weights = [&shape[..shape.len() - 2], &weights].concat(),
            2 => weights = [&[source.pick(&[1, 2, 3])][..], &weights].concat(),
            _ => {}
        }
    }
    let mut wanted = plain(&[x]);
    wanted.inputs.push(Some(b.weights(source, DType::F32, &weights)?));
    if !gemm {
        return Some(wanted);
    }
    let rows = if trans_a { *shape.last()? } else { *shape.first()? };
    let bias = source.pick(&[0usize, 1, 2, 3, 4, 5]);
    let bias = [vec![n], vec![1, n], vec![], vec![rows, n], vec![rows, 1], vec![1]][bias].clone();
    if source.below(3) > 0 {
        wanted.inputs.push(Some(b.weights(source, DType::F32, &bias)?));
    }
    wanted.attributes = wanted.attributes.with("transA", trans_a).with("transB", trans_b);
    if source.once_in(3) {
        wanted.attributes = wanted.attributes.with("alpha", source.pick(&[0.5f32, 0.0, -1.0]));
        wanted.attributes = wanted.attributes.with("beta", source.pick(&[2.0f32, 0.0, -1.0]));
    }
    Some(wanted)
}

fn normalization(b: &mut Builder, source: &mut Source<'_>, name: &str) -> Option<Wanted> {
    let x = b.some(source, floats(|r| r >= 2));
    let shape = b.fact(x).shape()?.to_vec();
    if shape.len() < 2 {
        return None;
    }
    let axis = source.below(shape.len());
    let scale =
        if name.starts_with("Layer") || name.starts_with("RMS") { &shape[axis..] } else { &shape[1..2] };
    let mut wanted = plain(&[x]);
    for _ in 0..if name == "RMSNormalization" { 1 } else { 2 } {
        wanted.inputs.push(Some(b.weights(source, DType::F32, scale)?));
    }
    if name == "BatchNormalization" {
        wanted.inputs.push(Some(b.weights(source, DType::F32, scale)?));
        let ones = Tensor::new(scale, &vec![0.75f32; scale[0]]).ok()?;
        wanted.inputs.push(Some(b.constant(ones)));
    }
    wanted.attributes = wanted.attributes.with("axis", axis as i64);
    wanted.attributes = wanted.attributes.with("num_groups", source.pick(&[1i64, 2, 3, 4]));
    Some(wanted)
}

fn movement(b: &mut Builder, source: &mut Source<'_>, name: &str) -> Option<Wanted> {
    let x = if source.once_in(8) { b.some(source, |_| true) } else { b.some(source, floats(|r| r > 0)) };
    let shape = b.fact(x).shape()?.to_vec();
    let rank = shape.len();
    let axis = match source.below(4) {
        0 => source.below(rank.max(1)) as i64,
        1 => -1 - source.below(rank.max(1)) as i64,
        _ => 1,
    };
    let mut wanted = plain(&[x]);
    match name {
        "Concat" => {
            let dtype = b.fact(x).dtype;
            for _ in 0..source.below(4) {
                let same = |s: &[usize]| {
                    let differ = s.iter().zip(&shape).filter(|(a, b)| a != b).count();
                    s.len() == rank
                        && differ <= 1
                        && s.iter().zip(&shape).enumerate().all(|(i, (a, b))| i == 1 || a == b)
                };
                let more = b.some(source, |f| f.dtype == dtype && f.shape().is_some_and(same));
                wanted.inputs.push(Some(if source.once_in(6) { x } else { more }));
            }
            wanted.attributes = wanted.attributes.with("axis", axis);
        }
        "Split" => {
            let along = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()?;
            let extent = *shape.get(along)?;
            let first = source.below(extent + 1);
            wanted.outputs = 2;
            if source.once_in(3) {
                let second = source.below(extent - first + 1);
                wanted.outputs = 3;
                let parts = [first as i64, second as i64, (extent - first - second) as i64];
                wanted.inputs.push(b.list(&parts));
            } else {
                wanted.inputs.push(b.list(&[first as i64, (extent - first) as i64]));
            }
            wanted.attributes = wanted.attributes.with("axis", axis);
        }
        "Slice" => {
            let count = 1 + source.below(rank.min(3));
            let starts = source.list(count, &[0, 1, 2, -1, -2, 100, -100]);
            let ends = source.list(starts.len(), &[100, 2, 3, -1, i64::MAX, 0, -100, i64::MIN, 1]);
            let axes: Vec<i64> =
                (0..starts.len() as i64).map(|i| (axis.max(0) + i) % rank.max(1) as i64).collect();
            wanted.inputs.extend([b.list(&starts), b.list(&ends), b.list(&axes)]);
            if source.once_in(2) {
                let steps = source.list(starts.len(), &[1, 2, -1, -2, 3, 1]);
                wanted.inputs.push(b.list(&steps));
            }
        }
        "Transpose" => {
            let mut perm: Vec<i64> = (0..rank as i64).collect();
            match source.below(4) {
                0 => perm = vec![0, 2, 3, 1],
                1 => perm = vec![0, 3, 1, 2],
                _ => (1..rank).for_each(|i| perm.swap(i, source.below(i + 1))),
            }
            wanted.attributes = wanted.attributes.with("perm", perm);
        }
        "Reshape" => {
            let mut target: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
            for _ in 0..=source.below(2) {
                let (from, to) = (source.below(target.len().max(1)), source.below(target.len().max(1)));
                match source.below(5) {
                    0 if rank > 1 && from != to => {
                        target[to] *= target[from];
                        target.remove(from);
                        break;
                    }
                    1 if rank > 0 && target[from] % 2 == 0 => {
                        target[from] /= 2;
                        target.insert(to, 2);
                    }
                    2 => target.insert(to, 1),
                    3 if rank > 0 && !target.contains(&-1) => target[from] = -1,
                    _ => target.reverse(),
                }
            }
            wanted.inputs.push(b.list(&target));
        }
        "Squeeze" => {
            let ones: Vec<i64> = (0..rank).filter(|&a| shape[a] == 1).map(|a| a as i64).collect();
            if source.below(3) > 0 {
                wanted.inputs.push(b.list(&ones));
            }
        }
        "Unsqueeze" => {
            let at = source.below(rank + 1) as i64;
            wanted.inputs.push(b.list(&[at]));
        }
        "Expand" | "Tile" => {
            let target: Vec<i64> = shape
                .iter()
                .map(|&d| if d == 1 || name == "Tile" { source.pick(&[1, 2, 3, 0]) } else { d as i64 })
                .collect();
            let more = if name == "Expand" && source.once_in(4) { vec![2] } else { vec![] };
            wanted.inputs.push(b.list(&[more, target].concat()));
        }
        "Pad" => {
            let pads = source.list(2 * rank, &[0, 1, 0, 2, -1, 0]);
            wanted.inputs.push(b.list(&pads));
            wanted.attributes =
                wanted.attributes.with("mode", source.pick(&["constant", "reflect", "edge", "wrap"]));
            if source.once_in(3) {
                wanted.inputs.push(Some(b.constant(Tensor::scalar(source.pick(&[0.5f32, 0.0, -1.0])))));
            }
        }
        "Resize" => resize(b, source, &shape, &mut wanted)?,
        _ => {
            let count = source.below(3);
            let indices = source.list(count, &[0, -1, 1]);
            let indices =
                if source.once_in(3) { b.constant(Tensor::scalar(0i64)) } else { b.list(&indices)? };
            wanted.inputs.push(Some(indices));
            wanted.attributes = wanted.attributes.with("axis", axis);
        }
    }
    Some(wanted)
}

fn resize(b: &mut Builder, source: &mut Source<'_>, shape: &[usize], wanted: &mut Wanted) -> Option<()> {
    let rank = shape.len();
    let roi: Vec<f32> =
        (0..2 * rank).map(|i| if i < rank { 0.1 } else { source.pick(&[0.9, 1.5]) }).collect();
    let roi = b.constant(Tensor::new(&[2 * rank], &roi).ok()?);
    wanted.inputs.push(Some(roi));
    let keep = source.below(4) > 0;
    if source.once_in(2) {
        let scales: Vec<f32> = (0..rank)
            .map(|a| if keep && a < 2 { 1.0 } else { source.pick(&[2.0, 0.5, 1.0, 1.7, 3.0, 0.3]) })
            .collect();
        wanted.inputs.push(Some(b.constant(Tensor::new(&[rank], &scales).ok()?)));
    } else {
        let sizes: Vec<i64> = (0..rank)
            .map(|a| if keep && a < 2 { shape[a] as i64 } else { source.pick(&[4, 1, 7, 8, 3]) })
            .collect();
        wanted.inputs.extend([None, b.list(&sizes)]);
    }
    let modes = [
        "half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
    ];
    let mode = source.pick(&["nearest", "linear", "cubic"]);
    let attributes = std::mem::take(&mut wanted.attributes)
        .with("mode", mode)
        .with("coordinate_transformation_mode", source.pick(&modes))
        .with("nearest_mode", source.pick(&["floor", "ceil", "round_prefer_ceil", "round_prefer_floor"]))
        .with("antialias", mode != "nearest" && source.once_in(3))
        .with("exclude_outside", mode == "cubic" && source.once_in(3));
    wanted.attributes = attributes;
    Some(())
}

fn broadcast(b: &mut Builder, source: &mut Source<'_>, name: &str) -> Option<Wanted> {
    let x = b.some(source, floats(|_| true));
    let (dtype, shape) = (b.fact(x).dtype, b.fact(x).shape()?.to_vec());
    let y = match source.below(4) {
        0 => b.some(source, |f| f.dtype == dtype && f.shape() == Some(&shape)),
        1 => b.some(source, |f| f.dtype == dtype),
        _ => {
            let mut part: Vec<usize> = shape.iter().map(|&d| source.pick(&[1, d, d])).collect();
            if source.once_in(3) {
                part.drain(..source.below(part.len() + 1));
            }
            if source.once_in(16) {
                part.insert(0, source.pick(&[2, 1, 0]));
            }
            b.weights(source, dtype, &part)?
        }
    };
    let swap = name != "PRelu" && source.once_in(3);
    let mut wanted = plain(&if swap { [y, x] } else { [x, y] });
    if matches!(name, "Max" | "Min" | "Sum" | "Mean") {
        match source.below(3) {
            0 => wanted.inputs.truncate(1),
            1 => wanted.inputs.push(Some(b.some(source, |f| f.dtype == dtype))),
            _ => {}
        }
    }
    Some(wanted)
}

/// Operators without a rule of their own: values that are there, of types that are often right.
fn other(b: &mut Builder, source: &mut Source<'_>, name: &str) -> Wanted {
    let mut wanted = plain(&[b.some(source, floats(|_| true))]);
    if name == "Where" {
        let shape = b.fact(ValueId(0)).shape().map(<[usize]>::to_vec).unwrap_or_default();
        let condition = b.weights(source, DType::Bool, &shape);
        wanted.inputs = vec![condition, wanted.inputs[0], wanted.inputs[0]];
        return wanted;
    }
    for _ in 0..source.pick(&[0usize, 0, 0, 1, 1, 2, 3, 4]) {
        let next = match source.below(6) {
            0 => Some(b.some(source, |_| true)),
            1 => Some(b.some(source, |f| f.dtype == DType::F32)),
            2 => {
                let length = source.below(4);
                let values = source.list(length, &[0, 1, 2, -1]);
                b.list(&values)
            }
            3 => Some(b.constant(Tensor::scalar(source.pick(&[0i64, 1, 2, -1])))),
            4 => Some(b.constant(Tensor::scalar(source.pick(&[0f32, 1.0, 6.0, -1.0])))),
            _ => None,
        };
        wanted.inputs.push(next);
    }
    wanted.outputs = source.pick(&[1, 1, 1, 2, 3]);
    wanted
}
