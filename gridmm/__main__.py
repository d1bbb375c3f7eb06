from gridmm.cli import main

main()
