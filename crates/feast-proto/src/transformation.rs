//! `feast.core.FeatureTransformationV2`, user-defined functions and aggregations.

use feast_core::{Aggregation, Substrait, Transformation, UserDefinedFunction};

use crate::core;
use crate::core::feature_transformation_v2::Transformation as Message;
use crate::malformed::Decoded;
use crate::time;

pub(crate) fn to_message(transformation: &Transformation) -> core::FeatureTransformationV2 {
    core::FeatureTransformationV2 {
        transformation: Some(match transformation {
            Transformation::UserDefinedFunction(function) => {
                Message::UserDefinedFunction(core::UserDefinedFunctionV2 {
                    name: function.name.clone(),
                    body: function.body.clone(),
                    body_text: function.body_text.clone(),
                    mode: function.mode.clone(),
                })
            }
            Transformation::Substrait(plan) => Message::SubstraitTransformation(core::SubstraitTransformationV2 {
                substrait_plan: plan.plan.clone(),
                ibis_function: plan.ibis_function.clone(),
            }),
        }),
    }
}

pub(crate) fn from_message(message: core::FeatureTransformationV2) -> Option<Transformation> {
    Some(match message.transformation? {
        Message::UserDefinedFunction(function) => Transformation::UserDefinedFunction(UserDefinedFunction {
            name: function.name,
            body: function.body,
            body_text: function.body_text,
            mode: function.mode,
        }),
        Message::SubstraitTransformation(plan) => {
            Transformation::Substrait(Substrait { plan: plan.substrait_plan, ibis_function: plan.ibis_function })
        }
    })
}

pub(crate) fn old_function_message(function: &UserDefinedFunction) -> core::UserDefinedFunction {
    core::UserDefinedFunction {
        name: function.name.clone(),
        body: function.body.clone(),
        body_text: function.body_text.clone(),
    }
}

pub(crate) fn old_function(message: core::UserDefinedFunction) -> UserDefinedFunction {
    UserDefinedFunction { name: message.name, body: message.body, body_text: message.body_text, mode: String::new() }
}

pub(crate) fn aggregation_messages(aggregations: &[Aggregation]) -> Vec<core::Aggregation> {
    let message = |aggregation: &Aggregation| core::Aggregation {
        column: aggregation.column.clone(),
        function: aggregation.function.clone(),
        time_window: time::duration_message(aggregation.time_window),
        slide_interval: time::duration_message(aggregation.slide_interval),
        name: aggregation.name.clone(),
    };
    aggregations.iter().map(message).collect()
}

pub(crate) fn aggregations(messages: Vec<core::Aggregation>) -> Decoded<Vec<Aggregation>> {
    let read = |message: core::Aggregation| -> Decoded<Aggregation> {
        Ok(Aggregation {
            name: message.name,
            column: message.column,
            function: message.function,
            time_window: time::duration(message.time_window)?,
            slide_interval: time::duration(message.slide_interval)?,
        })
    };
    messages.into_iter().map(read).collect()
}
