from sk_transformers.cli.evaluate import main

if __name__ == "__main__":
    main()
