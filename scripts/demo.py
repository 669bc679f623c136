from sk_transformers.cli.demo import main

if __name__ == "__main__":
    main()
