//! Where traces go, as OpenTelemetry's environment variables say it.

use std::time::Duration;

use feast_core::{Error, Result};
use feast_server::TraceOptions;

/// What the environment of this process says about traces; `None` when nobody wants them.
///
/// # Errors
/// `InvalidConfiguration` naming the variable; `Unsupported` for protocols other than protobuf over HTTP.
pub fn trace_options() -> Result<Option<TraceOptions>> {
    from_environment(&|name| std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|v| !v.is_empty()))
}

fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<TraceOptions>> {
    // What is said for traces counts more than what is said for all signals.
    let either = |name: &str| {
        environment(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
            .or_else(|| environment(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let whole = environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let base = environment("OTEL_EXPORTER_OTLP_ENDPOINT");
    let Some(endpoint) = whole.or_else(|| base.map(|base| format!("{}/v1/traces", base.trim_end_matches('/')))) else {
        return Ok(None);
    };
    if environment("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match environment("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(_) => return Err(wrong("OTEL_TRACES_EXPORTER", "`otlp` or `none`")),
    }
    if let Some(protocol) = either("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
        return Err(Error::unsupported(format!("traces cannot be sent by the protocol `{protocol}`"))
            .with_hint("set OTEL_EXPORTER_OTLP_PROTOCOL to `http/protobuf`; collectors take it at port 4318"));
    }
    let timeout = match either("TIMEOUT") {
        None => 10_000,
        Some(text) => text.parse().map_err(|_| wrong("OTEL_EXPORTER_OTLP_TIMEOUT", "a number of milliseconds"))?,
    };
    let headers = either("HEADERS").map_or(Ok(Vec::new()), |text| pairs("OTEL_EXPORTER_OTLP_HEADERS", &text))?;
    let attributes = environment("OTEL_RESOURCE_ATTRIBUTES");
    let mut resource = attributes.map_or(Ok(Vec::new()), |text| pairs("OTEL_RESOURCE_ATTRIBUTES", &text))?;
    let service = environment("OTEL_SERVICE_NAME");
    if service.is_some() || !resource.iter().any(|(name, _)| name == "service.name") {
        resource.retain(|(name, _)| name != "service.name");
        resource.push(("service.name".to_owned(), service.unwrap_or_else(|| "feast-server".to_owned())));
    }
    let sampler = environment("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".to_owned());
    let (parent_based, name) = match sampler.strip_prefix("parentbased_") {
        Some(name) => (true, name),
        None => (false, sampler.as_str()),
    };
    let ratio = match name {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => {
            let ratio = environment("OTEL_TRACES_SAMPLER_ARG").map_or(Ok(1.0), |text| text.parse::<f64>());
            let ratio = ratio.ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.ok_or_else(|| wrong("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1"))?
        }
        _ => {
            return Err(wrong(
                "OTEL_TRACES_SAMPLER",
                "`always_on`, `always_off` or `traceidratio`, also with `parentbased_`",
            ));
        }
    };
    let timeout = Duration::from_millis(timeout);
    Ok(Some(TraceOptions { endpoint, headers, timeout, resource, ratio, parent_based }))
}

fn wrong(variable: &str, expected: &str) -> Error {
    Error::invalid_configuration(format!("the environment variable `{variable}` is not {expected}"))
        .with_hint(format!("set it to {expected}, or unset it"))
}

/// `name=value,name=value`, values in percent encoding.
fn pairs(variable: &str, text: &str) -> Result<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().to_owned(), percent_decoded(value.trim())?))
    };
    let pairs: Option<Vec<_>> = text.split(',').filter(|text| !text.trim().is_empty()).map(pair).collect();
    pairs.ok_or_else(|| wrong(variable, "a list like `name=value,name=value`"))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%'
            && let [high, low, tail @ ..] = rest
            && let Some(byte) =
                std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            bytes.push(byte);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Option<TraceOptions>> {
        from_environment(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_endpoint_is_enough() {
        assert_eq!(with(&[]).unwrap(), None);
        let options = with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/")]).unwrap().unwrap();
        assert_eq!(options.endpoint, "http://c:4318/v1/traces");
        assert_eq!((options.ratio, options.parent_based), (1.0, true));
        assert_eq!(options.resource, [("service.name".to_owned(), "feast-server".to_owned())]);
    }

    #[test]
    fn the_rest_can_be_said_too() {
        let options = with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/take"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20YWI%3D, x-a=1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment=test"),
            ("OTEL_SERVICE_NAME", "b"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let options = options.unwrap().unwrap();
        assert_eq!(options.endpoint, "http://traces:4318/take");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(options.headers, [pair("authorization", "Basic YWI="), pair("x-a", "1")]);
        assert_eq!(options.resource, [pair("deployment.environment", "test"), pair("service.name", "b")]);
        assert_eq!((options.ratio, options.parent_based), (0.25, false));
        assert!(!format!("{options:?}").contains("YWI"), "headers are secrets");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |name: &str, value: &str| {
            with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, value)]).unwrap_err().message().to_owned()
        };
        assert_eq!(error("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "traces cannot be sent by the protocol `grpc`");
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ] {
            assert!(error(name, value).starts_with(&format!("the environment variable `{name}` is not ")));
        }
        for (name, value) in [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true")] {
            assert_eq!(with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, value)]).unwrap(), None);
        }
    }
}
