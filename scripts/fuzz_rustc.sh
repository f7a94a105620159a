#!/bin/sh
# `RUSTC_WRAPPER` of `make fuzz`: counts edges and comparisons in our own crates, so that libFuzzer sees which input leads
# where. The others are compiled as always: they are two thirds of the time, and not what is searched.
case " $* " in
*" --crate-name feast"* | *" fuzz_targets/"*)
	exec "$@" --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
		-Cllvm-args=-sanitizer-coverage-level=4 \
		-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
		-Cllvm-args=-sanitizer-coverage-pc-table \
		-Cllvm-args=-sanitizer-coverage-trace-compares
	;;
*) exec "$@" ;;
esac
