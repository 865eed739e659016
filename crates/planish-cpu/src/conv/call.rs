//! What a run of a convolution reads and writes.

use crate::element::{Element, ElementType, bf16, f16};
use crate::epilogue::Epilogue;
use crate::view::{Rows, RowsMut};

/// The tensors of a run, kept as `T`.
pub struct ConvCall<'a, T = f32> {
    /// A row of `in_channels` for each of the N·D·H·W pixels.
    pub input: Rows<'a, T>,
    /// What follows the sum; a residual has a row of `out_channels` for each output pixel.
    pub epilogue: Epilogue<'a, T>,
    /// A row of `out_channels` for each output pixel.
    pub output: RowsMut<'a, T>,
    /// At least [`PreparedConv::workspace_len`](super::PreparedConv::workspace_len) numbers of any value.
    pub workspace: &'a mut [f32],
}

/// An element that convolutions can be kept as.
pub trait ConvElement: Element {
    /// A call on its way through a trait object.
    fn erase(call: ConvCall<'_, Self>) -> AnyCall<'_>;

    /// The call that was [erased](ConvElement::erase), where its element is this one.
    fn restore(call: AnyCall<'_>) -> Option<ConvCall<'_, Self>>;
}

macro_rules! elements {
    ($($element:ident => $variant:ident),*) => {
        /// A call whose element is known at run time only.
        pub enum AnyCall<'a> {
            $(#[doc = concat!("On `", stringify!($element), "`.")] $variant(ConvCall<'a, $element>),)*
        }

        impl AnyCall<'_> {
            /// What it reads and writes.
            pub fn element(&self) -> ElementType {
                match self {
                    $(AnyCall::$variant(_) => ElementType::$variant,)*
                }
            }
        }

        $(impl ConvElement for $element {
            fn erase(call: ConvCall<'_, Self>) -> AnyCall<'_> {
                AnyCall::$variant(call)
            }

            fn restore(call: AnyCall<'_>) -> Option<ConvCall<'_, Self>> {
                match call {
                    AnyCall::$variant(call) => Some(call),
                    _ => None,
                }
            }
        })*
    };
}

elements!(f32 => F32, bf16 => Bf16, f16 => F16, u8 => U8);
