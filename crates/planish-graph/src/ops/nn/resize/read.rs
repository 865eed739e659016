//! The spellings of Resize since opset 10, and of Upsample before.

use super::{AspectRatio, Coordinates, Interpolation, NearestMode, Resize};
use crate::attributes::Attributes;
use crate::error::Result;
use crate::invalid;
use crate::ops::{NodeReader, Operator};
use crate::tensor::Tensor;
use std::sync::Arc;

const ASPECT_RATIOS: [(AspectRatio, &str); 3] = [
    (AspectRatio::Stretch, "stretch"),
    (AspectRatio::NotLarger, "not_larger"),
    (AspectRatio::NotSmaller, "not_smaller"),
];

/// What Upsample and the first Resize did, in the terms of today: the corner of the image stays, and so does the pixel
/// before.
fn old_style(attributes: &Attributes) -> Result<Resize> {
    let interpolation = match attributes.string("mode", "nearest")?.as_str() {
        "nearest" => Interpolation::Nearest(NearestMode::Floor),
        "linear" | "bilinear" => Interpolation::Linear { antialias: false },
        other => invalid!("attribute \"mode\" is unknown: \"{other}\""),
    };
    Ok(Resize { coordinates: Coordinates::Asymmetric, interpolation, ..Resize::default() })
}

impl Resize {
    pub(in super::super) fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        if node.before(11) {
            scales_to_third(node);
            return Ok(Arc::new(old_style(&node.attributes)?));
        }
        Ok(Arc::new(Resize::from_attributes(&node.attributes)?))
    }
    /// Upsample, which is a Resize.
    pub(in super::super) fn read_upsample(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        if node.before(9) {
            let scales = Attributes::require("scales", node.attributes.opt_floats("scales")?)?;
            node.keep_inputs = Some(1);
            node.set_constant_input(2, Tensor::new(&[scales.len()], &scales)?);
        } else {
            scales_to_third(node);
        }
        Ok(Arc::new(old_style(&node.attributes)?))
    }
    fn from_attributes(attributes: &Attributes) -> Result<Resize> {
        let antialias = attributes.flag("antialias", false)?;
        let interpolation = match attributes.string("mode", "nearest")?.as_str() {
            "nearest" if antialias => {
                invalid!("attribute \"antialias\" is 1, which mode \"nearest\" does not have")
            }
            "nearest" => {
                let mode = attributes.string("nearest_mode", "round_prefer_floor")?;
                Interpolation::Nearest(NearestMode::from_name(&mode)?)
            }
            "linear" => Interpolation::Linear { antialias },
            "cubic" => Interpolation::Cubic { a: attributes.float("cubic_coeff_a", -0.75)?, antialias },
            other => invalid!("attribute \"mode\" is unknown: \"{other}\""),
        };
        let policy = attributes.string("keep_aspect_ratio_policy", "stretch")?;
        let Some((aspect_ratio, _)) = ASPECT_RATIOS.iter().find(|(_, name)| *name == policy) else {
            invalid!("attribute \"keep_aspect_ratio_policy\" is unknown: \"{policy}\"")
        };
        let coordinates = attributes.string("coordinate_transformation_mode", "half_pixel")?;
        Ok(Resize {
            coordinates: Coordinates::from_name(&coordinates)?,
            interpolation,
            exclude_outside: attributes.flag("exclude_outside", false)?,
            extrapolation_value: attributes.float("extrapolation_value", 0.0)?,
            axes: attributes.opt_ints("axes")?,
            aspect_ratio: *aspect_ratio,
        })
    }
    pub(super) fn written(&self) -> Attributes {
        let mut attributes =
            Attributes::new().with("coordinate_transformation_mode", self.coordinates.name());
        attributes = match self.interpolation {
            Interpolation::Nearest(mode) => {
                attributes.with("mode", "nearest").with("nearest_mode", mode.name())
            }
            Interpolation::Linear { antialias } => {
                attributes.with("mode", "linear").with("antialias", antialias)
            }
            Interpolation::Cubic { a, antialias } => {
                attributes.with("mode", "cubic").with("cubic_coeff_a", a).with("antialias", antialias)
            }
        };
        if self.exclude_outside {
            attributes = attributes.with("exclude_outside", true);
        }
        if self.extrapolation_value != 0.0 {
            attributes = attributes.with("extrapolation_value", self.extrapolation_value);
        }
        if let Some(axes) = &self.axes {
            attributes = attributes.with("axes", axes.clone());
        }
        match ASPECT_RATIOS.iter().find(|(ratio, _)| *ratio == self.aspect_ratio) {
            Some((AspectRatio::Stretch, _)) | None => attributes,
            Some((_, name)) => attributes.with("keep_aspect_ratio_policy", *name),
        }
    }
}

/// Old spellings list the scales right behind X; today the region stands between.
fn scales_to_third(node: &mut NodeReader) {
    node.keep_inputs = Some(1);
    node.moved_inputs.insert(2, 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::Fact;
    use crate::tensor::DType;

    fn image() -> Tensor {
        Tensor::new(&[1, 1, 2, 2], &[1f32, 2., 3., 4.]).unwrap()
    }

    #[test]
    fn attributes_round_trip() {
        let op = Resize {
            coordinates: Coordinates::TfCropAndResize,
            interpolation: Interpolation::Cubic { a: -0.5, antialias: true },
            exclude_outside: true,
            extrapolation_value: 7.0,
            axes: Some(vec![2, 3]),
            aspect_ratio: AspectRatio::NotSmaller,
        };
        assert_eq!(Resize::from_attributes(&op.written()).unwrap(), op);
        assert_eq!(Resize::from_attributes(&Attributes::new()).unwrap(), Resize::default());
        for (name, value) in [("mode", "sinc"), ("nearest_mode", "odd"), ("keep_aspect_ratio_policy", "no")] {
            let bad = Attributes::new().with(name, value);
            assert!(Resize::from_attributes(&bad).unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn resizes_by_scales_and_sizes() {
        let x = image();
        let op = old_style(&Attributes::new()).unwrap();
        let scales = Tensor::new(&[4], &[1f32, 1., 1., 2.]).unwrap();
        let y = op.eval(&[Some(&x), None, Some(&scales)], 1).unwrap().remove(0);
        assert_eq!((y.shape(), y.to_f64s()), (&[1, 1, 2, 4][..], vec![1., 1., 2., 2., 3., 3., 4., 4.]));
        let linear = Resize {
            interpolation: Interpolation::Linear { antialias: false },
            axes: Some(vec![-1]),
            ..Resize::default()
        };
        let sizes = Tensor::from_i64s(&[4]).unwrap();
        let y = linear.eval(&[Some(&x), None, None, Some(&sizes)], 1).unwrap().remove(0);
        assert_eq!(y.to_f64s(), [1., 1.25, 1.75, 2., 3., 3.25, 3.75, 4.]);
    }

    #[test]
    fn infers_and_refuses() {
        let x = Some(Fact::constant(&image()));
        let scales = |values: &[f32]| Some(Fact::constant(&Tensor::new(&[values.len()], values).unwrap()));
        let op = Resize::default();
        let shape = op.infer(&[x.clone(), None, scales(&[1., 1., 1.5, 0.5])], 1).unwrap();
        assert_eq!(shape, [Fact::new(DType::F32, &[1, 1, 3, 1])]);
        for bad in [&[1f32, 1., 1.][..], &[1., 1., 0., 1.], &[1., 1., f32::NAN, 1.], &[1., 1., 1e30, 1.]] {
            assert!(op.infer(&[x.clone(), None, scales(bad)], 1).is_err());
        }
        assert!(op.infer(std::slice::from_ref(&x), 1).is_err());
        let open = Some(Fact::new(DType::F32, &[4]));
        assert_eq!(op.infer(&[x, None, open], 1).unwrap(), [Fact::unknown(DType::F32)]);
    }
}
