# `make` plays tb/*.hex through the core with cocotb 2 (pip install cocotb) and Icarus Verilog.
SIM ?= icarus
TOPLEVEL_LANG = verilog
COCOTB_TOPLEVEL = fgmp_core
COCOTB_TEST_MODULES = test_fgmp_core
VERILOG_SOURCES = $(addprefix $(CURDIR)/../,$(shell cat ../files.f))

include $(shell cocotb-config --makefiles)/Makefile.sim
