//! Whatever the attributes, types and shapes, an operator of this family refuses, or evaluates to what its rule foretold.

use super::OPERATORS;
use super::random::MersenneTwister;
use crate::attributes::Attributes;
use crate::error::ErrorKind;
use crate::infer::Fact;
use crate::limits::{Budget, with_budget};
use crate::ops::{NodeReader, OperatorEntry, read_operator};
use crate::tensor::{DType, Tensor};
use std::collections::BTreeMap;

/// Choices made at random, the same in every run.
struct Dice(MersenneTwister);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        (self.0.uniform() * count as f64) as usize
    }
    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
    fn list(&mut self, length: usize, choices: &[i64]) -> Vec<i64> {
        let hostile = [-1, 0, i64::MAX, i64::MIN, 1 << 31, 1 << 40, 5];
        let length = if self.once_in(20) { self.below(7) } else { length };
        (0..length).map(|_| if self.once_in(40) { self.pick(&hostile) } else { self.pick(choices) }).collect()
    }
    /// Attributes that some operator of the family reads; the others ignore them.
    fn attributes(&mut self, name: &str, axes: usize, group: usize) -> Attributes {
        let mut found = Attributes::new();
        for (name, choices) in [("strides", &[1i64, 2, 3][..]), ("dilations", &[1, 1, 2])] {
            if self.once_in(2) {
                found = found.with(name, self.list(axes, choices));
            }
        }
        if self.once_in(2) {
            found = found.with("pads", self.list(2 * axes, &[0, 0, 1, 2]));
        }
        if name.contains("ool") || self.once_in(4) {
            found = found.with("kernel_shape", self.list(axes, &[1, 2, 2, 3]));
        }
        found = found.with("pooled_shape", self.list(2, &[1, 2, 3]));
        if self.once_in(4) {
            found = found.with("auto_pad", self.pick(&["SAME_UPPER", "SAME_LOWER", "VALID", "ODD"]));
        }
        if self.once_in(4) {
            found = found.with("output_padding", self.list(axes, &[0, 1]));
        }
        if self.once_in(6) {
            found = found.with("output_shape", self.list(axes, &[1, 3, 6]));
        }
        for name in ["ceil_mode", "count_include_pad", "storage_order", "training_mode", "align_corners"] {
            found = found.with(name, self.pick(&[0i64, 1]));
        }
        for name in ["exclude_outside", "center_point_box"] {
            found = found.with(name, self.pick(&[0i64, 1]));
        }
        for name in
            ["p", "axis", "size", "num_groups", "blocksize", "groups", "offset_group", "output_height"]
        {
            found = found.with(name, self.pick(&[-1i64, 0, 1, 1, 2, 2, 3, 1 << 40]));
        }
        found = found.with("group", if self.once_in(10) { self.pick(&[0, -1, 3]) } else { group as i64 });
        found = found.with("block_size", self.pick(&[0i64, 0, 2, -1]));
        found = found.with("output_dtype", self.pick(&[0i64, 0, 0, 3, 1, 17, 22, 99]));
        found = found.with("saturate", self.pick(&[0i64, 1]));
        found = found.with("rounding_mode", self.pick(&["ROUND", "floor", "HALF_DOWN", "AROUND"]));
        found = found.with("sampling_ratio", self.pick(&[0i64, 2, 1 << 40]));
        found = found.with("epsilon", self.pick(&[0f32, 1e-5, f32::NAN]));
        found = found.with("spatial_scale", self.pick(&[1f32, 0.25, f32::INFINITY]));
        found = found.with("mode", self.pick(&["nearest", "linear", "cubic", "avg", "max", "DCR", "CRD"]));
        found = found.with("padding_mode", self.pick(&["zeros", "border", "reflection"]));
        found = found.with("nearest_mode", self.pick(&["floor", "ceil", "round_prefer_ceil"]));
        let modes =
            ["half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize", "half_pixel_symmetric"];
        found = found.with("coordinate_transformation_mode", self.pick(&modes));
        if self.once_in(2) {
            found = found.with("axes", self.list(2, &[0, 1, -1, 2]));
        }
        found.with("scales", vec![1f32, 1.0, self.pick(&[2f32, 0.5, -1.0, f32::NAN])])
    }
    /// Shapes of the inputs of an operator, most often such as fit.
    fn shapes(&mut self, name: &str, axes: usize, group: usize) -> Vec<Vec<usize>> {
        let extent = |dice: &mut Dice| dice.pick(&[1usize, 2, 3, 4, 6]);
        let batch = self.pick(&[0usize, 1, 1, 2]);
        let channels = group * self.pick(&[1usize, 2, 4]);
        let mut x = vec![batch, channels];
        x.extend((0..axes).map(|_| extent(self)));
        if self.once_in(30) {
            x = vec![0, channels, 1 << 26, 1 << 26];
        }
        let made = group * self.pick(&[1usize, 2]);
        let kernel = vec![self.pick(&[1usize, 2]); axes];
        let weights = |a: usize, b: usize| [&[a, b], &kernel[..]].concat();
        let (one, each) = (vec![1; self.below(2)], vec![channels]);
        match name {
            "Conv" | "ConvAdd" => vec![x, weights(made, channels / group), vec![made]],
            "ConvTranspose" => vec![x, weights(channels, made / group), vec![made]],
            "ConvInteger" => vec![x, weights(made, channels / group), one, vec![made]],
            "QLinearConv" => {
                let w = weights(made, channels / group);
                let parameters = [one.clone(), one.clone(), w, vec![made], vec![made], one.clone(), one];
                [vec![x], parameters.to_vec(), vec![vec![made]]].concat()
            }
            "DeformConv" => {
                let taps = kernel.iter().product::<usize>();
                let [height, width] = [extent(self), extent(self)];
                let x = vec![batch, channels, height + kernel[0] - 1, width + kernel[0] - 1];
                let offset = vec![batch, 2 * taps, height, width];
                vec![x, weights(made, channels / group), offset, vec![made], vec![batch, taps, height, width]]
            }
            "QLinearMatMul" => {
                let [m, k, n] = [extent(self), self.pick(&[0usize, 2]), extent(self)];
                let parameters = [one.clone(), one.clone(), vec![k, n], vec![n], vec![n], one.clone(), one];
                [vec![vec![m, k]], parameters.to_vec()].concat()
            }
            "MatMulInteger" => {
                let [m, k, n] = [extent(self), self.pick(&[0usize, 2]), extent(self)];
                vec![vec![batch, m, k], vec![k, n], vec![batch, m, 1], vec![n]]
            }
            "BatchNormalization" => vec![x, each.clone(), each.clone(), each.clone(), each],
            "InstanceNormalization" | "GroupNormalization" => vec![x, each.clone(), each],
            "LayerNormalization" => vec![x.clone(), x[x.len() - 1..].to_vec(), one],
            "RMSNormalization" => vec![x.clone(), x[1..].to_vec()],
            "QuantizeLinear" | "DequantizeLinear" => {
                let scale = if self.once_in(2) { one } else { each };
                vec![x, scale.clone(), scale]
            }
            "BipolarQuant" => vec![x, one],
            "Quant" | "IntQuant" => vec![x, [&each[..], &vec![1; axes]].concat(), one, vec![]],
            "Trunc" if self.once_in(2) => vec![x, one.clone(), one, vec![], vec![]],
            "Trunc" => vec![x, one.clone(), one.clone(), vec![], one, vec![]],
            "MaxUnpool" => vec![x.clone(), x.clone(), vec![x.len()]],
            "Resize" => vec![x.clone(), vec![2 * x.len()], vec![x.len()], vec![0]],
            "GridSample" => {
                let grid = [&[batch][..], &vec![2; axes], &[axes]].concat();
                vec![x, grid]
            }
            "AffineGrid" => vec![vec![1, axes, axes + 1], vec![axes + 2]],
            "Col2Im" => vec![vec![batch, 4, 4], vec![axes], vec![axes]],
            "RoiAlign" => vec![x, vec![2, 4], vec![2]],
            "MaxRoiPool" => vec![x, vec![2, 5]],
            "NonMaxSuppression" => {
                let boxes = extent(self);
                vec![vec![batch, boxes, 4], vec![batch, 2, boxes], one.clone(), one.clone(), one]
            }
            "Dropout" => vec![x, vec![], vec![]],
            _ => vec![x],
        }
    }
    /// The type of an input, most often such as fits.
    fn dtype(&mut self, name: &str, index: usize) -> DType {
        if self.once_in(40) {
            return self.pick(&DType::ALL);
        }
        match (name, index) {
            ("ConvInteger" | "MatMulInteger", _) => DType::U8,
            ("QLinearConv" | "QLinearMatMul", 0 | 2 | 3 | 5 | 7) => DType::I8,
            ("QLinearConv", 8) => DType::I32,
            ("QuantizeLinear", 2) | ("DequantizeLinear", 0 | 2) => DType::I8,
            ("MaxUnpool" | "Col2Im", 1 | 2) | ("AffineGrid", 1) => DType::I64,
            ("RoiAlign" | "NonMaxSuppression", 2) | ("Resize", 3) => DType::I64,
            ("Dropout", 2) => DType::Bool,
            _ => DType::F32,
        }
    }
    fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let count: usize = if shape.contains(&0) { 0 } else { shape.iter().product() };
        if dtype == DType::I64 {
            let values: Vec<i64> = (0..count).map(|_| self.pick(&[0i64, 1, 2, 3, 4, -1])).collect();
            return Tensor::new(shape, &values).unwrap();
        }
        if dtype == DType::F32 {
            let some = [0f32, 0.5, 1.0, 2.0, -1.0, 3.7, 1e30, f32::NAN, f32::INFINITY];
            let usual = if self.once_in(3) { some.len() } else { 6 };
            let values: Vec<f32> = (0..count).map(|_| some[self.below(usual)]).collect();
            return Tensor::new(shape, &values).unwrap();
        }
        let bytes: Vec<u8> = (0..count * dtype.size()).map(|_| self.below(256) as u8).collect();
        Tensor::from_bytes(dtype, shape, &bytes).unwrap()
    }
}

/// Runs `entry` on what the dice give; whether its rule let that pass.
fn check(entry: &OperatorEntry, dice: &mut Dice) -> bool {
    let (axes, group) = (dice.pick(&[1usize, 2, 2, 2, 3]), dice.pick(&[1usize, 1, 2]));
    let attributes = dice.attributes(entry.name, axes, group);
    let mut shapes = dice.shapes(entry.name, axes, group);
    // Vast shapes are for tensors without elements only.
    shapes.iter_mut().filter(|s| super::checks::product(s) > 1 << 16).for_each(|s| s.truncate(0));
    let reader = |name: &str, attributes: Attributes, opset: i64| NodeReader {
        op_type: name.to_string(),
        domain: entry.domain.to_string(),
        opset,
        attributes,
        input_count: shapes.len(),
        output_count: 1,
        constant_inputs: BTreeMap::new(),
        added_inputs: BTreeMap::new(),
        keep_inputs: None,
        moved_inputs: BTreeMap::new(),
    };
    let opset = dice.pick(&[7i64, 9, 11, 18, 21, 28]);
    let mut node = reader(entry.name, attributes, opset);
    let Ok(op) = read_operator(&mut node) else { return false };
    let again = read_operator(&mut reader(op.name(), op.attributes(), 28)).unwrap();
    assert_eq!(format!("{again:?}"), format!("{op:?}"));

    let count = op.arity().min_inputs.max(dice.below(shapes.len() + 1)).min(shapes.len());
    let tensors: Vec<Tensor> = shapes[..count]
        .iter()
        .enumerate()
        .map(|(index, shape)| {
            let dtype = dice.dtype(entry.name, index);
            dice.tensor(dtype, shape)
        })
        .collect();
    let skipped = if count > op.arity().min_inputs { dice.below(2 * count) } else { count };
    let is_given = |i: usize| i != skipped || i < op.arity().min_inputs;
    let mut given: Vec<Option<&Tensor>> =
        tensors.iter().enumerate().map(|(i, t)| is_given(i).then_some(t)).collect();
    for (&index, tensor) in &node.added_inputs {
        given.resize(given.len().max(index + 1), None);
        given[index] = Some(tensor);
    }
    let facts: Vec<Option<Fact>> = given.iter().map(|t| t.map(Fact::constant)).collect();
    let outputs = op.arity().min_outputs + dice.below(op.arity().max_outputs - op.arity().min_outputs + 1);
    let open: Vec<Option<Fact>> = facts.iter().map(|f| f.as_ref().map(|f| Fact::unknown(f.dtype))).collect();
    let unshaped = op.infer(&open, outputs);
    let Ok(found) = op.infer(&facts, outputs) else { return false };
    // Less is known of unknown shapes, and it does not contradict what is known of given ones.
    for (less, more) in unshaped.unwrap().iter().zip(&found) {
        assert_eq!(less.dtype, more.dtype, "{op:?}");
    }
    op.macs(&facts, &found);
    match with_budget(&Budget::new(1 << 22), || op.eval(&given, outputs)) {
        Ok(made) => {
            assert_eq!(made.len(), found.len(), "{op:?}");
            for (tensor, fact) in made.iter().zip(&found) {
                assert_eq!(tensor.dtype(), fact.dtype, "{op:?}");
                assert!(fact.shape().is_none_or(|s| s == tensor.shape()), "{op:?}: {fact:?} {tensor:?}");
            }
            true
        }
        Err(error) => {
            // Contents can only be refused where they name places; everything else is the rule's to refuse.
            let by_content = matches!(entry.name, "MaxUnpool" | "RoiAlign" | "MaxRoiPool");
            assert!(by_content || error.kind() == ErrorKind::Limit, "{op:?}: {error}");
            true
        }
    }
}

#[test]
fn refuses_or_evaluates() {
    let mut untried = Vec::new();
    for (seed, entry) in OPERATORS.iter().enumerate() {
        let mut dice = Dice(MersenneTwister::new(seed as u32));
        let evaluated = (0..5000).filter(|_| check(entry, &mut dice)).count();
        if evaluated < 10 {
            untried.push((entry.name, evaluated));
        }
    }
    assert!(untried.is_empty(), "hardly ever evaluated: {untried:?}");
}
