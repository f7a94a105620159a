//! Who computes an on-demand view: its plan runs here, and so do functions that are plain arithmetic; any other function
//! runs where Python is.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use feast_core::{
    Error, FeatureView, Field, OnDemandFeatures, Result, Transformation, Transformer, UserDefinedFunction, ValueType,
};
use feast_online::{Expressions, FunctionMode, SubstraitPlan};

/// Plans that are kept ready; views come and go in a process that lives long.
const MOST_PLANS: usize = 1024;

/// Computes on-demand views of every mode.
#[derive(Debug, Default)]
pub(crate) struct Transformations {
    /// What runs functions, where something does.
    python: Option<Arc<dyn Transformer>>,
    plans: Mutex<HashMap<Vec<u8>, Arc<SubstraitPlan>>>,
    /// By hash of the code and of what it is for; nothing for functions that have to be called.
    expressions: Mutex<HashMap<u64, Option<Arc<Expressions>>>>,
    hasher: RandomState,
}

impl Transformations {
    pub(crate) fn new(python: Option<Arc<dyn Transformer>>) -> Arc<Self> {
        Arc::new(Self { python, ..Self::default() })
    }

    /// Whether views of this kind can be computed here at all.
    pub(crate) fn computes(&self, view: &FeatureView) -> bool {
        self.python.is_some() || !needs_python(view)
    }

    fn plan(&self, view: &FeatureView, bytes: &[u8]) -> Result<Arc<SubstraitPlan>> {
        if let Some(known) = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(bytes) {
            return Ok(Arc::clone(known));
        }
        let plan = Arc::new(SubstraitPlan::parse(bytes).map_err(|error| of_view(view, error))?);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.insert(bytes.to_vec(), Arc::clone(&plan));
        Ok(plan)
    }

    /// Whether a view is known to be computed without anybody being asked.
    pub(crate) fn is_quick(&self, view: &FeatureView) -> bool {
        let Some((hash, _)) = self.code_of(view) else { return !needs_python(view) };
        matches!(self.expressions.lock().unwrap_or_else(PoisonError::into_inner).get(&hash), Some(Some(_)))
    }

    /// The function of a view as a number, and its mode.
    fn code_of(&self, view: &FeatureView) -> Option<(u64, FunctionMode)> {
        let on_demand = view.on_demand()?;
        let function = function_of(on_demand)?;
        let mode = FunctionMode::of(on_demand, function).ok()?;
        let features = view.features.iter().map(|feature| (feature.name.as_str(), feature.value_type as i32));
        let code = (&function.name, &function.body_text, function.body.as_ref(), mode.name());
        Some((self.hasher.hash_one((&view.name, code, features.collect::<Vec<_>>())), mode))
    }

    /// The expressions of a view, which whoever runs Python is asked for once.
    async fn expressions(&self, view: &FeatureView) -> Option<Arc<Expressions>> {
        let python = self.python.as_deref()?;
        let (hash, mode) = self.code_of(view)?;
        if let Some(known) = self.expressions.lock().unwrap_or_else(PoisonError::into_inner).get(&hash) {
            return known.clone();
        }
        // Whoever calls the function next is told why nobody can tell.
        let text = python.expressions(view).await.ok()?;
        let found = text.and_then(|text| Expressions::parse(&text, mode, view)).map(Arc::new);
        let mut known = self.expressions.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_PLANS {
            known.clear();
        }
        known.insert(hash, found.clone());
        found
    }

    fn python(&self, view: &FeatureView) -> Result<&dyn Transformer> {
        self.python.as_deref().ok_or_else(|| {
            Error::unsupported(format!("the on-demand view `{}` cannot be computed here, without Python", view.name))
                .with_hint("use a process that runs Python")
        })
    }
}

fn function_of(on_demand: &OnDemandFeatures) -> Option<&UserDefinedFunction> {
    match (&on_demand.transformation, &on_demand.user_defined_function) {
        (Some(Transformation::UserDefinedFunction(function)), _) | (None, Some(function)) => Some(function),
        _ => None,
    }
}

/// Whether a view has aggregations and no function of them.
fn is_made_of_aggregates(view: &FeatureView) -> bool {
    view.on_demand().is_some_and(|on_demand| {
        !on_demand.aggregations.is_empty()
            && on_demand.transformation.is_none()
            && on_demand.user_defined_function.is_none()
    })
}

/// Whether a view has a function.
pub(crate) fn needs_python(view: &FeatureView) -> bool {
    plan_of(view).is_none() && !is_made_of_aggregates(view)
}

/// The plan of a view in mode `substrait`.
pub(crate) fn plan_of(view: &FeatureView) -> Option<&[u8]> {
    match &view.on_demand()?.transformation {
        Some(Transformation::Substrait(substrait)) => Some(substrait.plan.as_ref()),
        _ => None,
    }
}

fn of_view(view: &FeatureView, error: Error) -> Error {
    let message = format!("on-demand feature view `{}` cannot be computed: {error}", view.name);
    Error::new(error.code(), message).with_hint_opt(error.hint().map(str::to_owned))
}

#[async_trait]
impl Transformer for Transformations {
    async fn apply(&self, view: &FeatureView, input: RecordBatch) -> Result<RecordBatch> {
        if let Some(bytes) = plan_of(view) {
            return self.plan(view, bytes)?.run(&input).map_err(|error| of_view(view, error));
        }
        if is_made_of_aggregates(view) {
            // They are among its inputs.
            return Ok(input);
        }
        if let Some(computed) = self.expressions(view).await.and_then(|expressions| expressions.apply(&input)) {
            return Ok(computed);
        }
        self.python(view)?.apply(view, input).await
    }

    async fn infer(&self, view: &FeatureView, sample: RecordBatch) -> Result<Vec<Field>> {
        if is_made_of_aggregates(view) {
            let aggregations = view.on_demand().map(|on_demand| on_demand.aggregations.as_slice()).unwrap_or_default();
            let fields = aggregations.iter().filter_map(|aggregation| {
                let name = aggregation.feature_name();
                let value_type = ValueType::of_arrow_field(sample.schema_ref().field_with_name(&name).ok()?)?;
                Some(Field::new(name, value_type))
            });
            return Ok(fields.collect());
        }
        let Some(bytes) = plan_of(view) else { return self.python(view)?.infer(view, sample).await };
        let plan = self.plan(view, bytes)?;
        let computed = plan.run(&sample).map_err(|error| of_view(view, error))?;
        let fields = computed.schema_ref().fields().iter();
        // Inputs that come out as they went in are not features, unless the view says so.
        let is_feature = |name: &str| {
            view.features.iter().any(|feature| feature.name == name) || !plan.inputs().any(|input| input == name)
        };
        let fields = fields.filter(|field| is_feature(field.name()));
        Ok(fields
            .map(|field| Field::new(field.name(), ValueType::from_arrow(field.data_type()).unwrap_or_default()))
            .collect())
    }

    async fn check(&self) -> Result<()> {
        match self.python.as_deref() {
            Some(python) => python.check().await,
            None => Err(Error::unsupported("functions cannot be run here, without Python")
                .with_hint("use a process that runs Python")),
        }
    }
}
