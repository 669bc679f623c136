from sk_transformers.cli.push import main

if __name__ == "__main__":
    main()
