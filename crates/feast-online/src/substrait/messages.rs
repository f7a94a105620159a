//! The part of Substrait's messages that plans of on-demand views use, by its official field numbers. What else a plan
//! holds is passed over while it is read, so what would change its meaning has a place here only to be refused.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Plan {
    #[prost(message, repeated, tag = "2")]
    pub(super) extensions: Vec<Declaration>,
    #[prost(message, repeated, tag = "3")]
    pub(super) relations: Vec<PlanRel>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Declaration {
    #[prost(message, optional, tag = "3")]
    pub(super) function: Option<DeclaredFunction>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeclaredFunction {
    #[prost(uint32, tag = "2")]
    pub(super) anchor: u32,
    /// `add:i64_i64`: a name and the types of its arguments.
    #[prost(string, tag = "3")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PlanRel {
    #[prost(message, optional, tag = "2")]
    pub(super) root: Option<RelRoot>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RelRoot {
    #[prost(message, optional, tag = "1")]
    pub(super) input: Option<Rel>,
    #[prost(string, repeated, tag = "2")]
    pub(super) names: Vec<String>,
}

/// One step. Those that are only named change which rows there are.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Rel {
    #[prost(message, optional, tag = "1")]
    pub(super) read: Option<ReadRel>,
    #[prost(message, optional, tag = "2")]
    pub(super) filter: Option<Nothing>,
    #[prost(message, optional, tag = "3")]
    pub(super) fetch: Option<Nothing>,
    #[prost(message, optional, tag = "4")]
    pub(super) aggregate: Option<Nothing>,
    #[prost(message, optional, tag = "5")]
    pub(super) sort: Option<Nothing>,
    #[prost(message, optional, tag = "6")]
    pub(super) join: Option<Nothing>,
    #[prost(message, optional, boxed, tag = "7")]
    pub(super) project: Option<Box<ProjectRel>>,
    #[prost(message, optional, tag = "8")]
    pub(super) set: Option<Nothing>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadRel {
    #[prost(message, optional, tag = "1")]
    pub(super) common: Option<RelCommon>,
    #[prost(message, optional, tag = "2")]
    pub(super) base_schema: Option<NamedStruct>,
    #[prost(message, optional, tag = "3")]
    pub(super) filter: Option<Nothing>,
    #[prost(message, optional, tag = "4")]
    pub(super) projection: Option<Nothing>,
    #[prost(message, optional, tag = "5")]
    pub(super) virtual_table: Option<Nothing>,
    #[prost(message, optional, tag = "6")]
    pub(super) local_files: Option<Nothing>,
    #[prost(message, optional, tag = "8")]
    pub(super) extension_table: Option<Nothing>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ProjectRel {
    #[prost(message, optional, tag = "1")]
    pub(super) common: Option<RelCommon>,
    #[prost(message, optional, tag = "2")]
    pub(super) input: Option<Rel>,
    #[prost(message, repeated, tag = "3")]
    pub(super) expressions: Vec<Expression>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RelCommon {
    #[prost(message, optional, tag = "2")]
    pub(super) emit: Option<Emit>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Emit {
    #[prost(int32, repeated, tag = "1")]
    pub(super) output_mapping: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedStruct {
    #[prost(string, repeated, tag = "1")]
    pub(super) names: Vec<String>,
    #[prost(message, optional, tag = "2")]
    pub(super) r#struct: Option<Struct>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Struct {
    #[prost(message, repeated, tag = "1")]
    pub(super) types: Vec<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 5, 7, 10, 11, 12, 13, 14, 16, 29")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    Bool(Nothing),
    #[prost(message, tag = "2")]
    I8(Nothing),
    #[prost(message, tag = "3")]
    I16(Nothing),
    #[prost(message, tag = "5")]
    I32(Nothing),
    #[prost(message, tag = "7")]
    I64(Nothing),
    #[prost(message, tag = "10")]
    Fp32(Nothing),
    #[prost(message, tag = "11")]
    Fp64(Nothing),
    #[prost(message, tag = "12")]
    String(Nothing),
    #[prost(message, tag = "13")]
    Binary(Nothing),
    #[prost(message, tag = "14")]
    Timestamp(Nothing),
    #[prost(message, tag = "16")]
    Date(Nothing),
    #[prost(message, tag = "29")]
    TimestampTz(Nothing),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Expression {
    #[prost(oneof = "Rex", tags = "1, 2, 3, 6, 8, 11")]
    pub(super) rex: Option<Rex>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Rex {
    #[prost(message, tag = "1")]
    Literal(Literal),
    #[prost(message, tag = "2")]
    Selection(FieldReference),
    #[prost(message, tag = "3")]
    ScalarFunction(ScalarFunction),
    #[prost(message, tag = "6")]
    IfThen(IfThen),
    #[prost(message, tag = "8")]
    SingularOrList(SingularOrList),
    #[prost(message, tag = "11")]
    Cast(Box<Cast>),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Literal {
    #[prost(oneof = "LiteralKind", tags = "1, 2, 3, 5, 7, 10, 11, 12, 14, 27, 29")]
    pub(super) kind: Option<LiteralKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum LiteralKind {
    #[prost(bool, tag = "1")]
    Boolean(bool),
    #[prost(int32, tag = "2")]
    I8(i32),
    #[prost(int32, tag = "3")]
    I16(i32),
    #[prost(int32, tag = "5")]
    I32(i32),
    #[prost(int64, tag = "7")]
    I64(i64),
    #[prost(float, tag = "10")]
    Fp32(f32),
    #[prost(double, tag = "11")]
    Fp64(f64),
    #[prost(string, tag = "12")]
    String(String),
    #[prost(int64, tag = "14")]
    Timestamp(i64),
    #[prost(int64, tag = "27")]
    TimestampTz(i64),
    #[prost(message, tag = "29")]
    Null(Type),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldReference {
    #[prost(message, optional, tag = "1")]
    pub(super) direct: Option<ReferenceSegment>,
    #[prost(message, optional, tag = "2")]
    pub(super) masked: Option<Nothing>,
    #[prost(message, optional, tag = "3")]
    pub(super) of_expression: Option<Nothing>,
    #[prost(message, optional, tag = "5")]
    pub(super) of_outer: Option<Nothing>,
    #[prost(message, optional, tag = "6")]
    pub(super) of_lambda: Option<Nothing>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReferenceSegment {
    #[prost(message, optional, tag = "2")]
    pub(super) struct_field: Option<StructField>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StructField {
    #[prost(int32, tag = "1")]
    pub(super) field: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) child: Option<Nothing>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScalarFunction {
    #[prost(uint32, tag = "1")]
    pub(super) reference: u32,
    #[prost(message, repeated, tag = "4")]
    pub(super) arguments: Vec<Argument>,
    /// How older plans give arguments.
    #[prost(message, repeated, tag = "2")]
    pub(super) args: Vec<Expression>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Argument {
    #[prost(message, optional, tag = "3")]
    pub(super) value: Option<Expression>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct IfThen {
    #[prost(message, repeated, tag = "1")]
    pub(super) ifs: Vec<IfClause>,
    #[prost(message, optional, boxed, tag = "2")]
    pub(super) r#else: Option<Box<Expression>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct IfClause {
    #[prost(message, optional, tag = "1")]
    pub(super) r#if: Option<Expression>,
    #[prost(message, optional, tag = "2")]
    pub(super) then: Option<Expression>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SingularOrList {
    #[prost(message, optional, boxed, tag = "1")]
    pub(super) value: Option<Box<Expression>>,
    #[prost(message, repeated, tag = "2")]
    pub(super) options: Vec<Expression>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Cast {
    #[prost(message, optional, tag = "1")]
    pub(super) r#type: Option<Type>,
    #[prost(message, optional, tag = "2")]
    pub(super) input: Option<Expression>,
    /// 1: what does not fit is null.
    #[prost(int32, tag = "3")]
    pub(super) failure_behavior: i32,
}
