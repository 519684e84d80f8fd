"""The benchmarks: capnweb_py against npm capnweb on Node, on the same work in the same run. Start at README.md."""
